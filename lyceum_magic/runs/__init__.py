"""The handle of a run, what it has to say to a waiting cell, and the journal of every run."""
