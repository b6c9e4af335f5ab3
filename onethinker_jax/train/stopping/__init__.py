"""How a run is stopped: Ctrl-C, SIGTERM, and what its processes tell each other of them."""
