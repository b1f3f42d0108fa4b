"""A real single-node Kubernetes on this machine, from packages alone: `python3 -m dev.cluster up|down|status|env`."""
