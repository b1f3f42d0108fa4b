"""The guard of a server: `access.py`, a module without dependencies that runs inside vLLM's process, and its text."""

from importlib import resources

MODULE = "hone_guard"
"""Its name in the server's pod."""
CLASS = "Guard"
VARIABLE = "HONE_GUARD"
"""The environment variable with its policy, as JSON."""


def source() -> str:
    """The module's text, which the operator puts into the server's pod."""
    return resources.files(__name__).joinpath("access.py").read_text(encoding="utf-8")
