"""Events of a run -> outputs and values: pure functions."""
