"""Why a Job failed: the cause among all its pods, or in the Job's own message where the pods are gone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hone.api.finetunejob_status import Failure
from hone.contract.exits import POLICIES, FailureClass, from_exit_code
from hone.contract.results import StepResult
from hone.core import pods as podinfo
from hone.core import reported
from hone.core.finetunejob.run import PREPARE
from hone.core.names import STEP_LABEL
from hone.core.observed import Object, Pod

MAX_MESSAGE = 1000
MAX_LAST_LOG = 600
OUT_OF_HOST_MEMORY = 137
TERMINATED = 143

HINTS = {
    FailureClass.HOST_OUT_OF_MEMORY: "raise spec.compute.resources.limits.memory, or lower spec.compute.microBatchSize",
    FailureClass.NEVER_STARTED: "check why the pods do not start: image, quota, node selector, free resources",
    FailureClass.DEADLINE_EXCEEDED: "raise spec.activeDeadlineSeconds; the run's checkpoints are kept",
}
PREPARE_HINTS = {
    FailureClass.HOST_OUT_OF_MEMORY: "raise spec.prepare.resources.limits.memory; to merge the adapter of another "
    "job, prepare loads all weights of its base model",
}
"""Hints for prepare where they differ: it has resources of its own."""

# Evidence that comes first in this order wins, whatever the rank of its class: a pod that was deleted because another
# one failed ends as preempted too, and a communication error is nearly always a consequence of another rank's end.
_DISRUPTED, _OWN, _DELETED, _CONSEQUENCE = range(4)


@dataclass(frozen=True)
class End:
    """How one pod ended.

    Attributes:
        tier: position among the kinds of evidence; the lowest wins.
        named: whether the Job's own message names this pod.
        failure: the failure that it reports.
    """

    tier: int
    named: bool
    failure: Failure

    @property
    def order(self) -> tuple[int, bool, int]:
        """Sorts the cause before its consequences."""
        return self.tier, not self.named, POLICIES[FailureClass(self.failure.failure_class)].rank


def make(cls: FailureClass, message: str, **more: Any) -> Failure:
    """A failure with its class's hint, cut to the API's lengths."""
    hint = more.pop("hint", None) or HINTS.get(cls)
    shown = reported.text(hint) if hint else None
    return Failure(failure_class=str(cls), message=reported.text(message, MAX_MESSAGE), hint=shown, **more)


def result_of(pod: Pod) -> StepResult | None:
    """The result in the pod's termination message; None if it has none, or one that cannot be stored in a status."""
    ended = podinfo.terminated(pod) or {}
    return reported.step_result(str(ended.get("message") or ""))


def results_of(pod: Pod) -> list[StepResult]:
    """The results of all the pod's containers that have ended, in the order in which they run."""
    messages = (str(end.get("message") or "") for end in podinfo.ends(pod))
    return [result for message in messages if (result := reported.step_result(message))]


def job_condition(job: Object, kind: str) -> dict[str, Any] | None:
    """The Job's condition of that type if it is True."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((dict(c) for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


def cause(job: Object, pods: Iterable[Pod]) -> Failure:
    """Why a Job with condition Failed=True failed.

    Args:
        job: the Job.
        pods: its pods, deleted ones included as far as they are remembered.
    """
    failed = job_condition(job, "Failed") or {}
    message = str(failed.get("message", ""))
    if failed.get("reason") == "DeadlineExceeded":
        seconds = job["spec"].get("activeDeadlineSeconds")
        return make(FailureClass.DEADLINE_EXCEEDED, f"the attempt ran longer than activeDeadlineSeconds ({seconds})")
    ends = [end for pod in pods if (end := _end(pod, message)) is not None]
    if not any(end.named for end in ends) and (named := _from_message(message)):
        ends.append(named)  # the Job deletes its other pods, and an evicted pod is deleted as well
    if ends:
        first = min(ends, key=lambda end: end.order).failure
        of_prepare = (job["metadata"].get("labels") or {}).get(STEP_LABEL) == PREPARE
        hint = PREPARE_HINTS.get(FailureClass(first.failure_class)) if of_prepare else None
        return first.model_copy(update={"hint": hint}) if hint else first
    return make(FailureClass.CRASHED, message or str(failed.get("reason", "the Job failed without a reason")))


def _from_message(message: str) -> End | None:
    """How the pod ended that the Job's own message names, or None if it names none."""
    if "condition DisruptionTarget" in message:
        return End(_DISRUPTED, True, make(FailureClass.PREEMPTED, message))
    if code := re.search(r"exit code ([0-9]{1,9})\b", message):
        cls = from_exit_code(int(code[1]))
        return End(_tier(cls), True, make(cls, message, exit_code=int(code[1])))
    return None


@dataclass(frozen=True)
class _Pod:
    """A pod of a Job that failed."""

    pod: Pod
    named: bool

    @property
    def label(self) -> str:
        return f"pod {self.pod.raw['metadata']['name']}"

    @property
    def deleted(self) -> bool:
        return self.pod.gone or "deletionTimestamp" in self.pod.raw["metadata"]

    def end(self, tier: int, cls: FailureClass, message: str, **more: Any) -> End:
        return End(tier, self.named, make(cls, message, **{"node": podinfo.index(self.pod), **more}))


def _tier(cls: FailureClass) -> int:
    """Tier of a container's own report. Preempted follows a deletion, whose cause may be another pod."""
    return {FailureClass.PREEMPTED: _DELETED, FailureClass.COMMUNICATION: _CONSEQUENCE}.get(cls, _OWN)


def _end(pod: Pod, job_message: str) -> End | None:
    """How the pod ended; None if it has not ended, or succeeded."""
    failed = _Pod(pod, named=f"/{pod.raw['metadata']['name']} " in job_message)
    status = pod.raw.get("status") or {}
    disruption = podinfo.condition(pod, "DisruptionTarget")
    if disruption and disruption.get("status") == "True":
        lost = disruption.get("reason") == "DeletionByPodGC"
        cls = FailureClass.NODE_LOST if lost else FailureClass.PREEMPTED
        message = f"{failed.label}: {disruption.get('reason')}: {disruption.get('message', '')}"
        return failed.end(_DISRUPTED, cls, message)
    if podinfo.phase(pod) == "Unknown" or status.get("reason") == "NodeLost":
        node = pod.raw.get("spec", {}).get("nodeName", "its node")
        return failed.end(_DISRUPTED, FailureClass.NODE_LOST, f"{failed.label}: {node} no longer responds")
    ended = podinfo.terminated(pod)
    if ended and status.get("reason") != "Evicted":
        return _container_end(failed, ended)
    # The kubelet rejected it, or evicted it for its own usage: an eviction because of the node is a disruption.
    if podinfo.phase(pod) == "Failed":
        cls = FailureClass.CRASHED if podinfo.has_started(pod) else FailureClass.NEVER_STARTED
        return failed.end(_OWN, cls, f"{failed.label}: {status.get('reason', 'Failed')}: {status.get('message', '')}")
    return failed.end(_DELETED, FailureClass.PREEMPTED, f"{failed.label} was deleted") if failed.deleted else None


def _container_end(failed: _Pod, ended: dict[str, Any]) -> End | None:
    """How the pod's container ended: from its result, or without one from its exit code."""
    code = int(ended.get("exitCode", 0))
    result = result_of(failed.pod)
    verdict = result.verdict if result else None
    vague = verdict is None or verdict.failure_class in (FailureClass.CRASHED, FailureClass.COMMUNICATION)
    if ended.get("reason") == "OOMKilled" and vague:
        return failed.end(
            _OWN, FailureClass.HOST_OUT_OF_MEMORY, f"{failed.label} ran out of host memory", exit_code=code
        )
    if verdict is not None:
        more: dict[str, Any] = {"hint": verdict.hint, "rank": verdict.rank, "step": verdict.step}
        more["final"], more["reason"] = verdict.final or None, verdict.reason
        more["exit_code"] = code if verdict.exit_code is None else verdict.exit_code
        more |= {} if verdict.node is None else {"node": verdict.node}
        return failed.end(_tier(verdict.failure_class), verdict.failure_class, verdict.message, **more)
    if code == 0:
        return None
    cls = from_exit_code(code)
    if code in (OUT_OF_HOST_MEMORY, TERMINATED) and failed.deleted:
        cls = FailureClass.PREEMPTED  # it did not end by itself within its grace period
    last = str(ended.get("message") or "").strip()[-MAX_LAST_LOG:]
    message = f"{failed.label} ended with exit code {code}" + (f": {last}" if last else "")
    return failed.end(_tier(cls), cls, message, exit_code=code)
