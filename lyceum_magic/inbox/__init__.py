"""The inbox of this notebook: addresses for callbacks, their receivers, and the callbacks kept."""
