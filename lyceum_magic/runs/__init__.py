"""The runs of this process: their handles, following and waiting for them, hooks, accounts."""
