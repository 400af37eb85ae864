"""The account of an embedded server: its secrets, its API keys, and the tokens made from them."""
