"""What the status shows: conditions, figures, texts and Events."""
