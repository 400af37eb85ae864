"""Where the embedded server keeps its records: one protocol, in memory or in SQLite."""
