"""The embedded server: requests of Lyceum's API in, runs on this machine and callbacks out."""
