"""Runners: they start runs of one kind on one sort of machine, and find them again."""
