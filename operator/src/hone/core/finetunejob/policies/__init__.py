"""Rules that decide about a run: pure functions of what was observed, none of which changes anything."""
