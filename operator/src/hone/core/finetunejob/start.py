"""Whether the pods of an attempt have started, how long they have waited, and what keeps them from starting."""

from hone.api.finetunejob_status import AttemptStatus, Failure
from hone.contract.exits import FailureClass
from hone.core import pods as podinfo
from hone.core.finetunejob.policies import failure as failures
from hone.core.finetunejob.policies import image_volumes
from hone.core.finetunejob.state import State
from hone.core.finetunejob.steps import STEPS
from hone.core.observed import Object, Pod
from hone.core.pods import Trouble
from hone.core.times import seconds_since

PATIENCE_SECONDS = 30.0
"""A Job that has no pods after this time, or whose pods' claims are not bound, is reported: a quota or an admission
policy may refuse its pods, or nothing makes volumes."""


def all_started(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> bool:
    """Whether every pod of the attempt has started; if a queue released the Job again, the newest pod of each index."""
    if is_queued(state.job_of(attempt)):
        return False
    size = STEPS[attempt.step].pods(state.run)
    started = {podinfo.index(pod) for pod in pods if podinfo.has_started(pod)}
    waiting = {podinfo.index(pod) for pod in pods if not podinfo.is_over(pod) and not podinfo.has_started(pod)}
    return len(started - waiting) >= size


def never_started(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Failure | None:
    """The failure of an attempt whose pods did not all start in time, or None. A queued Job has no deadline."""
    deadline, step = state.run.spec.start_deadline_seconds, STEPS[attempt.step]
    if is_queued(job) or (job is not None and _has_unseen_pods(job, pods)):
        return None
    if all_started(state, attempt, pods) or waited(state, attempt, job) < deadline:
        return None
    trouble = _trouble(state, attempt, pods) or find_trouble(state, attempt, job, pods)
    why = f"{trouble.reason}: {trouble.message}" if trouble else image_volumes.no_reason(state.run, step)
    message = f"not all pods started within startDeadlineSeconds ({deadline}): {why}"
    return failures.make(FailureClass.NEVER_STARTED, message, hint=step.start_hint)


def is_queued(job: Object | None) -> bool:
    """Whether a queue has suspended the Job; when it is released, its event triggers a reconcile."""
    return bool(job and job.get("spec", {}).get("suspend"))


def waited(state: State, attempt: AttemptStatus, job: Object | None) -> float:
    """Seconds that the attempt's pods have had to start. A Job's start time is reset when a queue releases it."""
    begin = ((job or {}).get("status") or {}).get("startTime") or attempt.start_time
    return seconds_since(begin, state.now)


def patience_left(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> float:
    """Seconds until missing pods and claims that are not bound are reported. On a busy cluster the pods come late."""
    created = [when for pod in pods if (when := pod.raw["metadata"].get("creationTimestamp"))]
    since = min([waited(state, attempt, job), *(seconds_since(when, state.now) for when in created)])
    return PATIENCE_SECONDS - since


def _has_unseen_pods(job: Object, pods: tuple[Pod, ...]) -> bool:
    """Whether the Job counts pods that were not listed: they may have started, and ended before they were read."""
    status = job.get("status") or {}
    counted = sum(status.get(kind) or 0 for kind in ("active", "terminating", "failed", "succeeded"))
    return bool(counted > len(pods))


def find_trouble(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Trouble | None:
    """What keeps the attempt's pods from starting, or None. Most claims are bound and most pods made within seconds."""
    is_early = patience_left(state, attempt, job, pods) > 0
    trouble = _trouble(state, attempt, pods)
    if trouble and not (is_early and trouble.reason == podinfo.CLAIM_NOT_BOUND):
        return trouble
    if not pods and not is_early:
        return Trouble(
            "NoPods", f"Job {attempt.job} has created no pods; `kubectl describe job {attempt.job}` shows why"
        )
    return None


def _trouble(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Trouble | None:
    """What keeps the first of the pods from running, with the remedy where that is known."""
    trouble = podinfo.trouble(pods)
    return trouble and image_volumes.explained(state.run, STEPS[attempt.step], trouble)
