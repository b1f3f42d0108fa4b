"""Notices that the API server's revisions went back, as after etcd was restored from a backup.

Watches then continue from a revision that the server does not have yet. They show nothing until then, without an error.
A consistent list is never older than one before it, so a lower revision proves that the store is another one.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from hone.core.kinds import KINDS
from hone.runtime.client import Client
from hone.runtime.errors import ApiError

log = logging.getLogger(__name__)


class WentBack(Exception):
    """The server has a lower revision than before: what the watches have shown is not what it has."""


async def watch(client: Client, namespaces: Callable[[], Sequence[str]], seconds: float) -> None:
    """Ask for the revision again and again; each time costs one request that returns at most one object.

    Args:
        client: the client.
        namespaces: returns those that the operator may list, of which one is asked for; an empty name: all.
        seconds: between two requests.

    Raises:
        WentBack: twice in a row, the revision was lower than one before. One answer alone may be a server's fault.
    """
    kind, highest, lower = next(iter(KINDS.values())), 0, 0
    while True:
        await asyncio.sleep(seconds)
        if not (listable := namespaces()):
            continue
        try:
            revision = await client.revision(listable[0], kind.api_version, kind.name)
        except ApiError as error:
            log.debug("the revision of the API server is not known: %s", error)
            continue
        if not revision:
            continue
        lower = lower + 1 if revision < highest else 0
        highest = max(highest, revision)
        if lower == 2:
            raise WentBack(f"the API server's revision went back from {highest} to {revision}, as after a restore")
