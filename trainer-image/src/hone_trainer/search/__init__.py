"""A search for settings: short trials in the train step, on the gang that then trains the best ones."""
