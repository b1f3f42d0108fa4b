"""Hone: a Kubernetes operator that turns one manifest into a fine-tuned, measured and served language model."""

__version__ = "0.1.0"
