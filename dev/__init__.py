"""Tools for working on Hone, on the standard library alone: `python3 -m dev.<name>`, from the repository's root."""
