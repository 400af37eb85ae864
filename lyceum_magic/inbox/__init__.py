"""Where callbacks to this notebook arrive: addresses, receivers, and what came in."""
