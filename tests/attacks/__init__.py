"""Attacks of another user of the same machine, with a real second user."""
