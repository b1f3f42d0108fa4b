"""What runs in the pods of a FineTuneJob: the steps prepare, launch (with train under it) and finish."""
