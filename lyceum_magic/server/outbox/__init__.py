"""Callbacks on their way out: the plan of attempts, the allowed targets, and the sending."""
