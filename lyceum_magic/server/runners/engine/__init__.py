"""Image runs as containers of a Docker engine."""
