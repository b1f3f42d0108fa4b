"""Tools for working on Hone: run as `python3 -m dev.<name>` from the repository's root, with the standard library alone."""
