"""Reads everything that a reconcile needs: from the index, and from the API server what the index cannot answer."""

import asyncio
import functools
from collections.abc import Callable, Sequence

from hone.core.kind import AnyKind
from hone.core.kinds import WATCHED, Watched, is_watched
from hone.core.names import UID_LABEL
from hone.core.observed import Object, Observed, Ref
from hone.core.subject import Subject
from hone.core.trim import trimmed
from hone.runtime.client import Client
from hone.runtime.evidence import EvidenceCache
from hone.runtime.index import Index
from hone.runtime.nodes import Nodes
from hone.runtime.readings import Readings

_WATCHED = {(watched.api_version, watched.kind): watched for watched in WATCHED}


class Observer:
    """Observes resources.

    Args:
        client: the client.
        index: what the watches have shown.
        evidence: pods that are gone.
        readings: the progress of pods.
        nodes: the nodes with GPUs.
        wake: called with kind, namespace and name of a resource whose progress has changed.
    """

    def __init__(
        self,
        client: Client,
        index: Index,
        evidence: EvidenceCache,
        readings: Readings,
        nodes: Nodes,
        wake: Callable[[str, str, str], None],
    ) -> None:
        self._client, self._index, self._evidence = client, index, evidence
        self._readings, self._nodes, self._wake = readings, nodes, wake

    async def resource(self, namespace: str, ref: Ref, fresh: bool) -> Object | None:
        """A resource of our kinds.

        Args:
            namespace: its namespace.
            ref: its name.
            fresh: whether to read from the API server.
        """
        return await self._read(namespace, ref) if fresh else self._index.get(namespace, ref)

    async def observe(self, kind: AnyKind, subject: Subject, fresh: bool = False) -> Observed:
        """Everything that `kind.reconcile` reads of the subject.

        Args:
            kind: the subject's kind.
            subject: the subject.
            fresh: whether to read from the API server whatever the index knows.
        """
        namespace, uid = subject.namespace, subject.uid
        objects: dict[Ref, Object | None] = {}
        # A job further along a chain is read from the API server when its own turn comes.
        near = {*kind.follows(subject.resource)} if fresh else set()
        while missing := [*dict.fromkeys(ref for ref in kind.refs(subject, objects) if ref not in objects)]:
            due = [ref for ref in missing if fresh and (ref.kind != kind.name or ref in near)]
            unknown = [ref for ref in missing if ref in due or not self._answers(kind, subject, ref)]
            read = await asyncio.gather(*(self._read(namespace, ref) for ref in unknown))
            objects |= {ref: self._index.get(namespace, ref) for ref in missing}
            objects |= dict(zip(unknown, read, strict=True))
        # The pods come last, so that a complete Job is never combined with pods from before its end.
        live = await self._list_pods(namespace, uid) if fresh else self._index.pods(namespace, uid)
        pods = self._evidence.merge(namespace, uid, live)
        reading = None
        if target := kind.progress_target(subject.resource, pods):
            wake = functools.partial(self._wake, kind.name, namespace, subject.name)
            reading = await self._readings.latest(namespace, uid, target, wake)
        else:
            self._readings.forget(uid)
        nodes = await self._nodes.latest() if kind.reads_nodes(subject) else None
        peers = await self._list_peers(namespace, kind) if kind.reads_peers(subject) else None
        return Observed(objects=objects, pods=pods, progress=reading, nodes=nodes, peers=peers)

    def stop_reading(self, uid: str) -> None:
        """Read no progress of a resource until it is observed again."""
        self._readings.forget(uid)

    def forget(self, namespace: str, uid: str) -> None:
        """Drop what is remembered about a resource that was deleted."""
        self._readings.forget(uid)
        self._evidence.forget(namespace, uid)

    def _answers(self, kind: AnyKind, subject: Subject, ref: Ref) -> bool:
        """Whether the index can tell what a reconcile needs to know of an object."""
        watched: Watched | None = _WATCHED.get((ref.api_version, ref.kind))
        if watched is None:
            return False
        if not watched.selector:
            # What a user has just created may come later than the event that made us look.
            return self._index.version(subject.namespace, ref) is not None or kind.may_lack(subject, ref)
        if self._index.version(subject.namespace, ref) is None:
            return kind.may_lack(subject, ref)  # No watch shows objects without our label.
        return not watched.metadata_only or kind.may_lack(subject, ref)

    async def _read(self, namespace: str, ref: Ref) -> Object | None:
        """An object, from the API server."""
        known = self._index.version(namespace, ref)
        obj = await self._client.get(namespace, ref)
        if obj is None:
            self._index.absent(namespace, ref, known)
        elif is_watched(obj):
            self._index.put(trimmed(obj))
        return obj

    async def _list_peers(self, namespace: str, kind: AnyKind) -> tuple[Object, ...]:
        """The resources of a kind, from the API server: soon after the start, watches have not shown all of them."""
        return tuple(await self._client.list(namespace, kind.api_version, kind.name, ""))

    async def _list_pods(self, namespace: str, uid: str) -> Sequence[Object]:
        """The pods of a resource, from the API server."""
        known = self._index.pods(namespace, uid)
        live = [trimmed(pod) for pod in await self._client.list(namespace, "v1", "Pod", f"{UID_LABEL}={uid}")]
        uids = {pod["metadata"]["uid"] for pod in live}
        for pod in live:
            self._index.put(pod)
        for pod in known:
            if pod["metadata"]["uid"] not in uids:
                self._index.remove(pod)
                self._evidence.saw_vanish(pod)
        return live
