"""Every run of this user on disk, so that it outlives its kernel, its tab and its cell."""
