"""PID 1 of a trainer pod: starts the ranks, supervises them, reports what they do."""
