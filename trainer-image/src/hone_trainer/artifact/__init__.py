"""What a run leaves behind: the exported model with its card."""
