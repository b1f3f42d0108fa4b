"""torchrun's rendezvous, whose store listens on the pod's loopback address alone.

torch's own static rendezvous lets its TCPStore listen on all addresses. The store asks nobody who they are: whoever
reaches it can become a rank. Other pods reach it only through `hone_trainer/launcher/tunnel.py`.
"""

import datetime
import socket

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from hone_trainer.launcher.gang import BACKEND
from hone_trainer.launcher.tunnel import LOOPBACK


class GangIncomplete(Exception):
    """Not all pods of the gang reached the rendezvous in time."""


class LoopbackRendezvous(RendezvousHandler):
    """A static rendezvous: ranks of nodes are given, and there is one round.

    Args:
        port: on the loopback address, where the store of node 0 listens. On other nodes, the tunnel to it.
        rank: of this node.
        nodes: number of nodes.
        run_id: prefix of all keys.
        timeout_seconds: how long to wait for the other nodes.
    """

    def __init__(self, port: int, rank: int, nodes: int, run_id: str, timeout_seconds: int) -> None:
        self._port = port
        self._rank = rank
        self._nodes = nodes
        self._run_id = run_id
        self._seconds = timeout_seconds
        self._store: TCPStore | None = None

    def get_backend(self) -> str:
        """The name of the backend."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """Ranks are clients of the same store, so they open none of their own."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """Connect to the store; on node 0, open it first, and wait for the other nodes.

        Raises:
            GangIncomplete: they did not come in time, or node 0 did not.
        """
        if self._store is None:
            listener = _listen(self._port) if self._rank == 0 else None
            try:
                self._store = TCPStore(
                    LOOPBACK,
                    self._port,
                    self._nodes,
                    is_master=listener is not None,
                    timeout=datetime.timedelta(seconds=self._seconds),
                    multi_tenant=True,
                    master_listen_fd=listener,
                )
            except DistError as error:
                raise GangIncomplete(
                    f"not all {self._nodes} pods met within startDeadlineSeconds ({self._seconds}), as seen by "
                    f"pod {self._rank}: {error}"
                ) from error
        store = PrefixStore(self._run_id, self._store)
        return RendezvousInfo(store, self._rank, self._nodes, RendezvousStoreInfo(LOOPBACK, self._port))

    def is_closed(self) -> bool:
        """A static rendezvous is never closed."""
        return False

    def set_closed(self) -> None:
        """Do nothing: there is no second round."""

    def num_nodes_waiting(self) -> int:
        """No node can join later."""
        return 0

    def get_run_id(self) -> str:
        """The prefix of all keys."""
        return self._run_id

    def shutdown(self) -> bool:
        """Do nothing: the store ends with the process."""
        return True


def register() -> None:
    """Make the backend known to torchrun in this process."""
    rendezvous_handler_registry.register(BACKEND, _create)


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    return LoopbackRendezvous(
        port=int(parameters.endpoint.rpartition(":")[2]),
        rank=int(parameters.get_as_int("rank", -1) or 0),
        nodes=parameters.max_nodes,
        run_id=parameters.run_id,
        timeout_seconds=int(parameters.get("timeout")),
    )


def _listen(port: int) -> int:
    """A listening socket on the loopback address, as a file descriptor that the store owns from now on."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(socket.SOMAXCONN)
    except BaseException:
        listener.close()
        raise
    return listener.detach()
