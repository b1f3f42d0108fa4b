"""What prepare decides before training, and how an attempt that ran out of memory continues."""
