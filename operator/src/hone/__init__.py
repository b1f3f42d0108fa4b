"""Hone: a Kubernetes operator that turns one manifest into a fine-tuned, evaluated and served language model."""

__version__ = "0.1.0"
