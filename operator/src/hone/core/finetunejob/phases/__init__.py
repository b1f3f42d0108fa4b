"""The phases of a reconcile, in the order of `reconcile`; none depends on another."""
