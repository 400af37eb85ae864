"""Compose stacks in a Docker engine."""
