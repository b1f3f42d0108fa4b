"""Copies of an artifact outside of the cluster: what is copied, and one module for each kind of destination."""
