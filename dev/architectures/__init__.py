"""Which architectures work: tiny models of many families, tried with every method; `python3 -m dev.architectures`."""
