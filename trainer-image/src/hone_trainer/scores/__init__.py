"""Scores of base and tuned model on the test split, each with its interval."""
