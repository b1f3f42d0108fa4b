"""Whom publish connects to: what the spec names, unless it is link-local, and else only public addresses."""

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hone.contract.runconfig import Publication
from hone_trainer.publishing.failures import STORE, URI, Refused

if TYPE_CHECKING:
    import httpx2


class PrivateAddress(Exception):
    """A redirect, or a name that the destination sent, leads to an address that is not public."""


def require_named(copy: Publication, url: str) -> None:
    """Refuse a destination at a link-local address, such as that of a cloud's metadata.

    Raises:
        Refused: it is at one.
    """
    host = urlsplit(url).hostname or ""
    if any(ipaddress.ip_address(address).is_link_local for address in _addresses(host)):
        field = STORE if copy.uri.startswith("s3://") else URI
        raise Refused("AddressRefused", field, f"{host} is a link-local address", "Name the store by another address.")


def client(named: str) -> "httpx2.Client":
    """A client that connects to the host of the URL `named`, and to other hosts only at public addresses."""
    import httpx2

    own = urlsplit(named).hostname

    def check(request: httpx2.Request) -> None:
        host = request.url.host
        if host == own:
            return
        for address in _addresses(host):
            if not ipaddress.ip_address(address).is_global:
                raise PrivateAddress(f"{host} leads to {address}, which is no public address")

    return httpx2.Client(
        event_hooks={"request": [check]}, follow_redirects=True, timeout=httpx2.Timeout(60.0, write=600.0)
    )


def _addresses(host: str) -> list[str]:
    """All addresses of a host; none where it has no name, which the connection itself will report."""
    try:
        known = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(address[0]).partition("%")[0] for *_, address in known]
