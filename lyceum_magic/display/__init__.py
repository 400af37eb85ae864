"""Decoded outputs and facts of a run -> what the reader sees; nothing in here knows a server."""
