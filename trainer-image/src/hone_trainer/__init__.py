"""What runs in a FineTuneJob's pods: prepare, launch (with train under it) and finish; and verify, in a server's."""
