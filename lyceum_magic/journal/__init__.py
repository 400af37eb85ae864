"""Every run of this user on disk: a run outlives its kernel, its tab and its cell."""
