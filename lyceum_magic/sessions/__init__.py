"""Sessions: variables that last from cell to cell, wherever each cell runs."""
