"""What runs in a FineTuneJob's pods: prepare, launch (and train under it), finish, publish; in a server's: verify."""
