"""Options and cell -> the start request: wrapped source, requirements, values and files."""
