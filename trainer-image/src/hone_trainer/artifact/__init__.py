"""What a run leaves behind: the exported model with its card, and the check of one."""
