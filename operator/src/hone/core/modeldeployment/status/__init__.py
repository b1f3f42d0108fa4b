"""What the status shows: conditions, figures and Events."""
