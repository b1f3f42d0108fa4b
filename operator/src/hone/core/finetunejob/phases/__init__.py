"""The phases of a reconcile, in the order of `reconcile`; none knows of another."""
