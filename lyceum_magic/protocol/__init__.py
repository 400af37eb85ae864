"""What both sides say: frozen types and pure functions, no I/O. Source: Lyceum's API v2."""
