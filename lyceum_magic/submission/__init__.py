"""Options and cell -> what travels: wrapped source, requirements, the start request."""
