"""From the user's files to token ids with labels: reading, formats, splits, masks."""
