"""Reads everything that a reconcile needs: the objects that the resource refers to, its pods, its progress."""

from collections.abc import Callable

from hone.core.kind import AnyKind
from hone.core.names import UID_LABEL
from hone.core.observed import Object, Observed, ProgressReading, Ref
from hone.core.settings import Settings
from hone.core.subject import Subject
from hone.runtime.client import Client
from hone.runtime.evidence import EvidenceCache
from hone.runtime.progress import ProgressReader


class Observer:
    """Observes resources. All objects are read from the API server; only a pod's last progress is cached.

    Args:
        client: the client.
        settings: the operator's settings.
        evidence: pods that ended or were ending.
        progress: reads the progress of pods.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        evidence: EvidenceCache,
        progress: ProgressReader,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._settings, self._evidence = client, settings, evidence
        self._progress, self._clock = progress, clock
        self._readings: dict[str, tuple[float, ProgressReading]] = {}  # by uid of the resource

    async def observe(self, kind: AnyKind, subject: Subject) -> Observed:
        """Everything that `kind.reconcile` reads of the subject."""
        resource = subject.resource
        namespace, uid = resource["metadata"]["namespace"], resource["metadata"]["uid"]
        objects: dict[Ref, Object | None] = {}
        while missing := [ref for ref in kind.refs(subject, objects) if ref not in objects]:
            for ref in dict.fromkeys(missing):
                objects[ref] = await self._client.get(namespace, ref)
        # The pods come last, so that a complete Job is never combined with pods from before its end.
        live = await self._client.list(namespace, "v1", "Pod", f"{UID_LABEL}={uid}")
        pods = self._evidence.merge(uid, live)
        reading = None
        if target := kind.progress_target(resource, pods):
            at, reading = self._readings.get(uid, (float("-inf"), None))
            if not reading or reading.pod_uid != target.pod_uid or self._stale(at):
                reading = await self._progress.read(target)
                self._readings[uid] = (self._clock(), reading)
        else:
            self._readings.pop(uid, None)
        return Observed(objects=objects, pods=pods, progress=reading)

    def forget(self, uid: str) -> None:
        """Drop what is remembered about a resource that was deleted."""
        self._readings.pop(uid, None)
        self._evidence.forget(uid)

    def _stale(self, at: float) -> bool:
        # A small tolerance: the reconcile for the next reading may come slightly early.
        return self._clock() - at >= 0.95 * self._settings.progress_seconds
