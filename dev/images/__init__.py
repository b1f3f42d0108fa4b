"""Builds Hone's container images with buildah and pushes them to a registry: `python3 -m dev.images build`."""
