"""Decisions, and nothing else: observed state and the time in, a Plan out. No client, no clock, no await."""
