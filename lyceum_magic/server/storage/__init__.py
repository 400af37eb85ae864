"""The account's storage: one bucket of files, and an S3 endpoint over it."""
