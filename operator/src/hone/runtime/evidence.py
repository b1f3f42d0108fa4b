"""A cache of pods that ended or were ending: after a pod is deleted, no other object records how it ended."""

from collections import OrderedDict
from collections.abc import Sequence

from hone.core.names import UID_LABEL
from hone.core.observed import Object, Pod

MAX_PODS = 1000


class EvidenceCache:
    """The last state of pods that were ending or deleted; the oldest are dropped first.

    In memory only: after a restart of the operator, the Job's own failure message is used instead.

    Args:
        limit: maximum number of pods.
    """

    def __init__(self, limit: int = MAX_PODS) -> None:
        self._limit = limit
        self._pods: OrderedDict[str, Object] = OrderedDict()

    def saw(self, event_type: str | None, pod: Object) -> None:
        """Handle a watch event of a pod; only pods that have ended or are ending are cached."""
        uid = pod["metadata"]["uid"]
        if event_type != "DELETED" and not _ending(pod):
            return
        metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
        self._pods[uid] = {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": metadata}
        self._pods.move_to_end(uid)
        while len(self._pods) > self._limit:
            self._pods.popitem(last=False)

    def merge(self, owner_uid: str, live: Sequence[Object]) -> tuple[Pod, ...]:
        """The resource's pods: those that exist, then remembered ones that were deleted.

        Args:
            owner_uid: uid of the resource that the pods belong to.
            live: its pods as they were just listed.
        """
        present = {pod["metadata"]["uid"] for pod in live}
        gone = [pod for uid, pod in self._pods.items() if uid not in present and _owner(pod) == owner_uid]
        return (*(Pod(pod) for pod in live), *(Pod(pod, gone=True) for pod in gone))

    def forget(self, owner_uid: str) -> None:
        """Drop the pods of a resource that was deleted."""
        for uid in [uid for uid, pod in self._pods.items() if _owner(pod) == owner_uid]:
            del self._pods[uid]

    def __len__(self) -> int:
        return len(self._pods)


def _owner(pod: Object) -> str | None:
    return (pod["metadata"].get("labels") or {}).get(UID_LABEL)


def _ending(pod: Object) -> bool:
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return (
        "deletionTimestamp" in pod["metadata"]
        or status.get("phase") in ("Succeeded", "Failed", "Unknown")
        or any("terminated" in (entry.get("state") or {}) for entry in statuses)
    )
