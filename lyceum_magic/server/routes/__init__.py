"""HTTP in, HTTP out: one router for each family of paths. The rules are in `server.service`."""
