"""Decisions as pure functions from observed state and time to a Plan. No client, no clock, no await."""
