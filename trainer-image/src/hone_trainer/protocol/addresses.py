"""Lets the process connect to public addresses only, whatever names, redirects and proxies lead to."""

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddress(Exception):
    """A name that is not the administrator's leads to an address that is not public."""


@contextmanager
def public_only(trusted: Iterable[str]) -> Iterator[None]:
    """While this is entered, each name must lead to public addresses.

    The addresses that are checked are those that the connection is then made to: a name that is resolved a second time
    may lead elsewhere. All of the libraries that download resolve names by this function, and addresses as well.

    Args:
        trusted: hosts that the administrator named, which may have any address.
    """
    resolve, allowed = socket.getaddrinfo, {host.lower() for host in trusted}

    def checked(host: Any, *args: Any, **kwargs: Any) -> Any:
        addresses = resolve(host, *args, **kwargs)
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.lower() not in allowed:
            for *_, address in addresses:
                if not is_public(str(address[0])):
                    raise PrivateAddress(f"{name[:253]} leads to {address[0]}, which is no public address")
        return addresses

    socket.getaddrinfo = checked
    try:
        yield
    finally:
        socket.getaddrinfo = resolve


def hosts_of_store(endpoint: str | None, uri: str) -> list[str]:
    """The hosts that requests to an S3-compatible store go to: its own, and the one that begins with the bucket's name.

    Args:
        endpoint: URL of the store; None: Amazon S3, for which there is nothing to name.
        uri: s3://bucket/key.
    """
    host, bucket = urlsplit(endpoint or "").hostname, uri.removeprefix("s3://").partition("/")[0]
    return [host, f"{bucket}.{host}"] if host else []


def is_public(text: str) -> bool:
    """Whether an address is public, and so is the IPv4 address in it where it has one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast


def private_address(error: BaseException) -> PrivateAddress | None:
    """The refusal behind an error of a library that wraps it."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop()
        if each is None or each in seen:
            continue
        if isinstance(each, PrivateAddress):
            return each
        seen.append(each)
        queue += [each.__cause__, each.__context__]
    return None
