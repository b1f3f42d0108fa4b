"""The nodes with GPUs, listed at most every few minutes, and only if a reconcile has to know them."""

import asyncio
import logging
import time
from collections.abc import Callable

from hone.core.nodes import node_of
from hone.core.observed import Node
from hone.runtime.client import Client
from hone.runtime.errors import Forbidden

SECONDS = 120.0
"""How long a list is used: nodes get their labels soon after they start, and keep them."""
PAGE = 100
"""Nodes in one answer: each names all images that it has."""
LABELED = "nvidia.com/gpu.product"
"""A label of all nodes whose GPUs NVIDIA's GPU feature discovery has described."""
log = logging.getLogger(__name__)


class Nodes:
    """Lists nodes.

    Args:
        client: the client.
        clock: seconds since some moment.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._lock = asyncio.Lock()
        self._listed: tuple[Node, ...] | None = None
        self._listed_at: float | None = None

    async def latest(self) -> tuple[Node, ...] | None:
        """The nodes; None if the operator may not list them.

        Raises:
            ApiError: the API server did not answer as it should.
        """
        async with self._lock:
            if self._listed_at is None or self._clock() - self._listed_at >= SECONDS:
                self._listed = await self._list()
                self._listed_at = self._clock()
            return self._listed

    async def _list(self) -> tuple[Node, ...] | None:
        try:
            return tuple([node_of(obj) async for obj in self._client.pages("v1", "Node", LABELED, PAGE)])
        except Forbidden as error:
            log.log(
                logging.INFO if self._listed_at is None else logging.DEBUG,
                "memory of GPUs is known from specs alone: the operator may not list nodes: %s",
                error,
            )
            return None
