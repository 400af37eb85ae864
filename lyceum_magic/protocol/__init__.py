"""The wire, for both sides: frozen types and pure functions, no I/O. Source: Lyceum's API v2."""
