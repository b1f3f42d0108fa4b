"""Phase 2: what stops a running attempt from outside: suspension, an edit before the start, the start deadline."""

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, Failure
from hone.contract.exits import FailureClass
from hone.core import pods as podinfo
from hone.core.finetunejob import failure as failures
from hone.core.finetunejob import usage
from hone.core.finetunejob.run import Step
from hone.core.finetunejob.state import State
from hone.core.observed import Object, Pod
from hone.core.plan import Delete
from hone.core.pods import Trouble
from hone.core.times import seconds_since

NO_PODS_SECONDS = 30.0
"""After this long a Job without pods is shown as trouble: quota or admission refuses them."""


def interrupt(state: State) -> None:
    """Stop the running attempt where there is a reason to, and show what keeps it from starting."""
    if spec_changed(state):
        _stop(state, AttemptResult.REPLACED)
        forget_preparation(state)
    if state.run.spec.suspend:
        _stop(state, AttemptResult.SUSPENDED)
    _watch_start(state)


def spec_changed(state: State) -> bool:
    """Whether the spec was edited since it was prepared. Once training has started, the API server refuses edits."""
    return state.start_time is None and state.prepared_spec is not None and state.prepared_spec != state.run.spec_digest


def forget_preparation(state: State) -> None:
    """Forget what was made of a spec that is no more."""
    state.dataset = state.plan = state.run_config = state.prepared_spec = None
    state.failures = {}


def _stop(state: State, result: AttemptResult, failure: Failure | None = None) -> None:
    """Delete the running attempt's Job. Its pods have their grace, in which training saves itself."""
    attempt = state.running
    if attempt is None:
        return
    job = state.job_of(attempt)
    usage.count(state, attempt, job, podinfo.of_job(state.observed.pods, attempt.job))
    if job is not None:
        ref = state.run.job_ref(attempt.step, attempt.number)
        state.delete.append(Delete(ref, job["metadata"]["uid"]))
    state.end(attempt, result, failure)


def _watch_start(state: State) -> None:
    attempt = state.running
    if attempt is None:
        return
    job, pods = state.job_of(attempt), podinfo.of_job(state.observed.pods, attempt.job)
    if failure := never_started(state, attempt, job, pods):
        _stop(state, AttemptResult.FAILED, failure)
        return
    if _is_queued(job) or all_started(state, attempt, pods):
        return
    state.trouble = _trouble(state, attempt, job, pods)
    age = _waited(state, attempt, job)
    state.requeue.append(max(1.0, state.run.spec.start_deadline_seconds - age))
    if not pods and age < NO_PODS_SECONDS:
        state.requeue.append(NO_PODS_SECONDS - age)


def all_started(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> bool:
    """Whether every pod of the attempt has begun to run; where a queue let it go again, the newest of each index."""
    if _is_queued(state.job_of(attempt)):
        return False
    size = state.run.compute.nodes if attempt.step == Step.TRAIN else 1
    started = {podinfo.index(pod) for pod in pods if podinfo.has_started(pod)}
    waiting = {podinfo.index(pod) for pod in pods if not podinfo.is_over(pod) and not podinfo.has_started(pod)}
    return len(started - waiting) >= size


def never_started(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Failure | None:
    """The failure of an attempt whose pods did not all start in time, or None. A Job that is queued has time."""
    deadline = state.run.spec.start_deadline_seconds
    if _is_queued(job) or (job is not None and _has_unseen_pods(job, pods)):
        return None
    if all_started(state, attempt, pods) or _waited(state, attempt, job) < deadline:
        return None
    trouble = _trouble(state, attempt, job, pods)
    why = f"{trouble.reason}: {trouble.message}" if trouble else "the kubelet does not tell why"
    return failures.make(
        FailureClass.NEVER_STARTED, f"not all pods ran within startDeadlineSeconds ({deadline}): {why}"
    )


def _is_queued(job: Object | None) -> bool:
    """Whether a queue holds the Job back; its events tell when it no longer does."""
    return bool(job and job.get("spec", {}).get("suspend"))


def _waited(state: State, attempt: AttemptStatus, job: Object | None) -> float:
    """Seconds that the attempt's pods have had to start. A queue sets the Job's start time anew when it lets it go."""
    begin = ((job or {}).get("status") or {}).get("startTime") or attempt.start_time
    return seconds_since(begin, state.now)


def _has_unseen_pods(job: Object, pods: tuple[Pod, ...]) -> bool:
    """Whether the Job counts pods that are not seen: they may have started, and ended before anybody looked."""
    status = job.get("status") or {}
    counted = sum(status.get(kind) or 0 for kind in ("active", "terminating", "failed", "succeeded"))
    return bool(counted > len(pods))


def _trouble(state: State, attempt: AttemptStatus, job: Object | None, pods: tuple[Pod, ...]) -> Trouble | None:
    if found := podinfo.trouble(pods):
        return found
    if not pods and _waited(state, attempt, job) >= NO_PODS_SECONDS:
        return Trouble("NoPods", f"Job {attempt.job} has made no pod; `kubectl describe job {attempt.job}` tells why")
    return None
