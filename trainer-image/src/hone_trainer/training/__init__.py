"""What happens while ranks train: callbacks, checkpoints, divergence, agreement between ranks."""
