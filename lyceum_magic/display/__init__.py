"""Decoded outputs and facts of a run -> a notebook or a terminal, without any server."""
