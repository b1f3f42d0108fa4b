"""Whether the pods of an attempt have started, how long they have waited, and what keeps them from starting."""

from hone.api.finetunejob_status import AttemptStatus, Failure
from hone.contract.exits import FailureClass
from hone.core import pods as podinfo
from hone.core.finetunejob.policies import failure as failures
from hone.core.finetunejob.state import State
from hone.core.finetunejob.steps import STEPS
from hone.core.observed import Object, Pod
from hone.core.pods import Trouble
from hone.core.times import seconds_since

NO_PODS_SECONDS = 30.0
"""After this long a Job without pods is shown as trouble: quota or admission refuses them."""


def all_started(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> bool:
    """Whether every pod of the attempt has begun to run; where a queue let it go again, the newest of each index."""
    if is_queued(state.job_of(attempt)):
        return False
    size = STEPS[attempt.step].pods(state.run)
    started = {podinfo.index(pod) for pod in pods if podinfo.has_started(pod)}
    waiting = {podinfo.index(pod) for pod in pods if not podinfo.is_over(pod) and not podinfo.has_started(pod)}
    return len(started - waiting) >= size


def never_started(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Failure | None:
    """The failure of an attempt whose pods did not all start in time, or None. A Job that is queued has time."""
    deadline = state.run.spec.start_deadline_seconds
    if is_queued(job) or (job is not None and _has_unseen_pods(job, pods)):
        return None
    if all_started(state, attempt, pods) or waited(state, attempt, job) < deadline:
        return None
    trouble = find_trouble(state, attempt, job, pods)
    why = f"{trouble.reason}: {trouble.message}" if trouble else "the kubelet does not tell why"
    return failures.make(
        FailureClass.NEVER_STARTED, f"not all pods ran within startDeadlineSeconds ({deadline}): {why}"
    )


def is_queued(job: Object | None) -> bool:
    """Whether a queue holds the Job back; its events tell when it no longer does."""
    return bool(job and job.get("spec", {}).get("suspend"))


def waited(state: State, attempt: AttemptStatus, job: Object | None) -> float:
    """Seconds that the attempt's pods have had to start; a queue resets the Job's start time when it releases it."""
    begin = ((job or {}).get("status") or {}).get("startTime") or attempt.start_time
    return seconds_since(begin, state.now)


def _has_unseen_pods(job: Object, pods: tuple[Pod, ...]) -> bool:
    """Whether the Job counts pods that are not seen: they may have started, and ended before they were read."""
    status = job.get("status") or {}
    counted = sum(status.get(kind) or 0 for kind in ("active", "terminating", "failed", "succeeded"))
    return bool(counted > len(pods))


def find_trouble(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Trouble | None:
    if trouble := podinfo.trouble(pods):
        return trouble
    if not pods and waited(state, attempt, job) >= NO_PODS_SECONDS:
        return Trouble("NoPods", f"Job {attempt.job} has made no pod; `kubectl describe job {attempt.job}` tells why")
    return None
