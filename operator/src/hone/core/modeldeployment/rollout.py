"""The progress of a rollout, and what keeps it from completing."""

from collections.abc import Iterable
from typing import Any

from hone.contract.exits import FailureClass, exit_code
from hone.contract.verdict import Verdict
from hone.core import pods as podinfo
from hone.core import reported
from hone.core.modeldeployment.server import FETCH, VERIFY
from hone.core.names import REVISION_LABEL
from hone.core.observed import Object, Pod
from hone.core.pods import Trouble

MAX_LAST_WORDS = 600
CRASHES = "CrashLoopBackOff"
TRIES = 3
"""Restarts of a server after which its revision is rejected."""
ARTIFACT_CHANGED = "ArtifactChanged"
"""Reason of a rollout whose artifact failed the check: only who changed the files can repair that."""
FINAL = (ARTIFACT_CHANGED, str(FailureClass.BAD_INPUT))
"""Reasons of a rollout that do not resolve by waiting."""


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
    own = of_revision(pods, revision)
    crashes = (crash for pod in own if (crash := _crash(pod)))
    if first := next(crashes, None) or podinfo.trouble(own):
        return first
    failure = _condition(live, "ReplicaFailure")
    if failure.get("status") == "True":
        return Trouble(str(failure.get("reason", "ReplicaFailure")), str(failure.get("message", "")))
    return None


def crash_loop(pods: Iterable[Pod], revision: str) -> Trouble | None:
    """How a server of the revision ends again and again, or None: fewer ends may be those of a node."""
    for pod in of_revision(pods, revision):
        crash = _crash(pod)
        statuses = (*podinfo.init_containers(pod), podinfo.container(pod))
        if crash and crash.reason == CRASHES and max(int(each.get("restartCount") or 0) for each in statuses) >= TRIES:
            return crash
    return None


def of_revision(pods: Iterable[Pod], revision: str) -> list[Pod]:
    """The pods of a revision."""
    return [pod for pod in pods if (pod.raw["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision]


def _crash(pod: Pod) -> Trouble | None:
    """A container that exited and is not ready again, running or waiting: one reason, or conditions would flap."""
    if podinfo.is_over(pod) or "deletionTimestamp" in pod.raw["metadata"]:
        return None
    for status in podinfo.init_containers(pod):
        if trouble := _failed_check(status):
            return trouble
    container = podinfo.container(pod)
    last = (container.get("lastState") or {}).get("terminated")
    if not last or container.get("ready"):
        return None
    return Trouble(CRASHES, _ended("the server", last))


def _failed_check(status: Object) -> Trouble | None:
    """What the init container reported when it failed. It runs again and again; between two runs it is as it was."""
    states = ((status.get(name) or {}).get("terminated") for name in ("state", "lastState"))
    last = next((state for state in states if state), None)
    if status.get("ready") or not last or last.get("exitCode") == 0:
        return None
    if status.get("name") == FETCH and (result := reported.step_result(str(last.get("message") or ""))):
        return _not_fetched(result.verdict)
    if status.get("name") != VERIFY or last.get("exitCode") != exit_code(FailureClass.BAD_INPUT):
        return Trouble(CRASHES, _ended(f"init container {status.get('name')!r}", last))
    words = str(last.get("message") or "").strip()[:MAX_LAST_WORDS]
    return Trouble(ARTIFACT_CHANGED, f"the artifact is not what its job wrote, so no server starts: {words}")


def _not_fetched(verdict: Verdict | None) -> Trouble | None:
    """Why a published model could not be downloaded, or is another one. The kubelet tries again."""
    if verdict is None:
        return None
    message = f"{verdict.message} {verdict.hint}" if verdict.hint else verdict.message
    return Trouble(verdict.reason or str(verdict.failure_class), reported.text(message))


def _ended(what: str, terminated: Object) -> str:
    words = str(terminated.get("message") or "").strip()[-MAX_LAST_WORDS:]
    message = f"{what} ended with exit code {terminated.get('exitCode')} ({terminated.get('reason', 'Error')})"
    return message + (f": {words}" if words else "")


def _condition(live: Object | None, kind: str) -> dict[str, Any]:
    conditions = ((live or {}).get("status") or {}).get("conditions") or []
    return next((dict(condition) for condition in conditions if condition.get("type") == kind), {})
