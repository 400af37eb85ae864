"""`lyceum-magic run`: an ordinary notebook, executed cell by cell in a session of its own."""
