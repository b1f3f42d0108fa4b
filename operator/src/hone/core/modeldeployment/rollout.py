"""The progress of a rollout, and what keeps it from completing."""

from collections.abc import Iterable
from typing import Any

from hone.core import pods as podinfo
from hone.core.names import REVISION_LABEL
from hone.core.observed import Object, Pod
from hone.core.pods import Trouble

MAX_LAST_WORDS = 600


def desired(live: Object) -> int:
    """The desired number of pods of the Deployment."""
    return int(live["spec"].get("replicas", 1))


def available(live: Object | None) -> int:
    """The number of available pods, of any revision."""
    return int(((live or {}).get("status") or {}).get("availableReplicas", 0))


def is_complete(live: Object) -> bool:
    """Whether all pods are of the newest revision and available, and no others are left."""
    status = live.get("status") or {}
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return False
    counts = (status.get("updatedReplicas", 0), status.get("replicas", 0), status.get("availableReplicas", 0))
    return counts == (desired(live),) * 3


def is_stuck(live: Object | None) -> bool:
    """Whether the Deployment has made no progress within its deadline."""
    progressing = _condition(live, "Progressing")
    return progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded"


def trouble(live: Object | None, pods: Iterable[Pod], revision: str) -> Trouble | None:
    """What keeps the revision's pods from becoming ready, or None."""
    own = [pod for pod in pods if (pod.raw["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision]
    crashes = (crash for pod in own if (crash := _crash(pod)))
    if first := next(crashes, None) or podinfo.trouble(own):
        return first
    failure = _condition(live, "ReplicaFailure")
    if failure.get("status") == "True":
        return Trouble(str(failure.get("reason", "ReplicaFailure")), str(failure.get("message", "")))
    return None


def _crash(pod: Pod) -> Trouble | None:
    """A server that exited and is not ready again, running or waiting: one reason, so that conditions do not flap."""
    if podinfo.is_over(pod) or "deletionTimestamp" in pod.raw["metadata"]:
        return None
    container = podinfo.container(pod)
    last = (container.get("lastState") or {}).get("terminated")
    if not last or container.get("ready"):
        return None
    words = str(last.get("message") or "").strip()[-MAX_LAST_WORDS:]
    message = f"the server ended with exit code {last.get('exitCode')} ({last.get('reason', 'Error')})"
    return Trouble("CrashLoopBackOff", message + (f": {words}" if words else ""))


def _condition(live: Object | None, kind: str) -> dict[str, Any]:
    conditions = ((live or {}).get("status") or {}).get("conditions") or []
    return next((dict(condition) for condition in conditions if condition.get("type") == kind), {})
