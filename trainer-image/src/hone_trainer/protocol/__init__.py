"""What the steps and ranks of a run read and write: configuration, plan, status, results, errors, logs."""
