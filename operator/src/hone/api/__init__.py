"""The two resources' types, and the CRDs that are generated from them. Imports nothing above `contract`."""

GROUP = "hone.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
