"""The objects of a server, one builder per object."""
