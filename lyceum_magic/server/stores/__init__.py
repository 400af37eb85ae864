"""The records of the embedded server: one interface, in memory or in SQLite."""
