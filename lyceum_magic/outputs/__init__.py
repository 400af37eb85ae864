"""Events -> decoded outputs: pure functions."""
