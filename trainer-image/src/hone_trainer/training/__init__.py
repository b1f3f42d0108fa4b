"""What happens while ranks train: callbacks, checkpoints, divergence, collectives."""
