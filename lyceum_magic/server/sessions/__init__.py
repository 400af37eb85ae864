"""Keep the account's sessions: snapshots as files, and heads that move by compare-and-set."""
