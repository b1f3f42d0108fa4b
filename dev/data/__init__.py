"""Example data written by seeded generators, so that no data set has to be downloaded."""
