"""What another user of the same machine may try, with a real second user."""
