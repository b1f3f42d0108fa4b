"""The HTTP client of the Hub and of registries, which waits for a limited time."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

SECONDS, WRITE_SECONDS = 60.0, 600.0
"""How long the other side may be silent, and how long it may take nothing of what is sent."""


def client() -> "httpx2.Client":
    """A client that follows redirects."""
    import httpx2

    return httpx2.Client(follow_redirects=True, timeout=httpx2.Timeout(SECONDS, write=WRITE_SECONDS))
