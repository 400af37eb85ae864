"""The output of runs: kept in spools, masked, read from any offset, sent as events."""
