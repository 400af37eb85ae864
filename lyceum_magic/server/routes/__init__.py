"""HTTP in, HTTP out: one router for each family of paths; the rules are in `server.service`."""
