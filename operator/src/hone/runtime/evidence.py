"""A cache of pods that ended and are deleted: no other object records how they ended.

Tenants do not trust each other, so a pod counts only for a resource in its own namespace, and no namespace can push the
pods of another one out of the cache.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from hone.core.names import UID_LABEL
from hone.core.observed import Object, Pod
from hone.core.pods import SIDECAR

MAX_PODS = 1000
MAX_NAMESPACE_PODS = 200


class _Key(NamedTuple):
    namespace: str
    owner: str
    uid: str


class EvidenceCache:
    """The last state of pods that are gone, trimmed (`hone.core.trim`).

    In memory only: after a restart of the operator, the Job's own failure message is used instead.

    Args:
        limit: maximum number of pods; beyond it, the namespace that has the most loses its oldest.
        per_namespace: maximum number of pods of a namespace; its oldest are dropped first.
    """

    def __init__(self, limit: int = MAX_PODS, per_namespace: int = MAX_NAMESPACE_PODS) -> None:
        self._limit, self._per_namespace = limit, per_namespace
        self._pods: OrderedDict[_Key, Object] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def saw_deleted(self, pod: Object) -> None:
        """A pod was deleted; `pod` is its last state."""
        self._keep(_Key(pod["metadata"]["namespace"], _owner(pod), pod["metadata"]["uid"]), pod)

    def saw_vanish(self, pod: Object) -> None:
        """A pod is gone, and nobody saw its deletion: its last known state counts only if it was ending."""
        if is_ending(pod):
            self.saw_deleted(pod)

    def merge(self, namespace: str, owner_uid: str, live: Sequence[Object]) -> tuple[Pod, ...]:
        """The resource's pods: those that exist, then those that are gone.

        Args:
            namespace: namespace of the resource.
            owner_uid: its uid.
            live: its pods that exist.
        """
        present = {pod["metadata"]["uid"] for pod in live}
        keys = [key for key in self._pods if key[:2] == (namespace, owner_uid) and key.uid not in present]
        return (*(Pod(pod) for pod in live), *(Pod(self._pods[key], gone=True) for key in keys))

    def forget(self, namespace: str, owner_uid: str) -> None:
        """Drop the pods of a resource that was deleted."""
        for key in [key for key in self._pods if key[:2] == (namespace, owner_uid)]:
            self._drop(key)

    def __len__(self) -> int:
        return len(self._pods)

    def _keep(self, key: _Key, pod: Object) -> None:
        if self._pods.pop(key, None) is None:
            self._counts[key.namespace] += 1
        self._pods[key] = pod
        if self._counts[key.namespace] > self._per_namespace:
            self._drop_oldest(key.namespace)
        if len(self._pods) > self._limit:
            self._drop_oldest(max(self._counts, key=lambda namespace: self._counts[namespace]))

    def _drop_oldest(self, namespace: str) -> None:
        self._drop(next(key for key in self._pods if key.namespace == namespace))

    def _drop(self, key: _Key) -> None:
        del self._pods[key]
        self._counts[key.namespace] -= 1
        if not self._counts[key.namespace]:
            del self._counts[key.namespace]


def is_ending(pod: Object) -> bool:
    """Whether the pod has ended, or is about to."""
    status = pod.get("status") or {}
    ended = [(entry.get("state") or {}).get("terminated") for entry in status.get("containerStatuses") or []]
    # An init container that succeeded is how a pod begins.
    before = [
        (entry.get("state") or {}).get("terminated")
        for entry in status.get("initContainerStatuses") or []
        if entry.get("name") != SIDECAR
    ]
    return (
        "deletionTimestamp" in pod["metadata"]
        or status.get("phase") in ("Succeeded", "Failed", "Unknown")
        or any(state is not None for state in ended)
        or any(state is not None and state.get("exitCode") != 0 for state in before)
    )


def _owner(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(UID_LABEL, ""))
