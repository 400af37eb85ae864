"""Callbacks on their way out: what is to be sent, where it may go, when it is tried again."""
