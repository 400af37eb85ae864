"""The embedded server seen from the notebook: find it, start it, prove it; the demo on it."""
