"""Python runs as processes of this machine."""
