"""Conditions that stop a running attempt: suspension, an edit before training starts, the start deadline."""

from hone.api.finetunejob_status import AttemptResult, Failure
from hone.core import pods as podinfo
from hone.core.finetunejob.policies import image_volumes
from hone.core.finetunejob.start import all_started, find_trouble, is_queued, never_started, patience_left, waited
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status.usage import gpu_seconds
from hone.core.finetunejob.steps import STEPS
from hone.core.plan import Delete


def stop_if_due(state: State) -> None:
    """Stop the running attempt if there is a reason to, and report what keeps it from starting."""
    if state.spec_changed:
        _stop(state, AttemptResult.REPLACED)
        state.forget_preparation()
    if state.running and state.is_outdated(STEPS[state.running.step]):
        _stop(state, AttemptResult.REPLACED)
    if state.run.spec.suspend:
        _stop(state, AttemptResult.SUSPENDED)
    _watch_start(state)


def _stop(state: State, result: AttemptResult, failure: Failure | None = None) -> None:
    """Delete the running attempt's Job. In the grace period of its pods, training saves a checkpoint."""
    attempt = state.running
    if attempt is None:
        return
    job = state.job_of(attempt)
    pods = podinfo.of_job(state.observed.pods, attempt.job)
    state.count_gpu_seconds(gpu_seconds(state, attempt, job, pods))
    if job is not None:
        ref = state.run.job_ref(attempt.step, attempt.number)
        state.delete.append(Delete(ref, job["metadata"]["uid"]))
    state.end(attempt, result, failure)


def _watch_start(state: State) -> None:
    attempt = state.running
    if attempt is None:
        return
    job, pods = state.job_of(attempt), podinfo.of_job(state.observed.pods, attempt.job)
    lost = image_volumes.dropped(state.run, STEPS[attempt.step], job)
    if failure := lost or never_started(state, attempt, job, pods):
        _stop(state, AttemptResult.FAILED, failure)
        return
    if is_queued(job) or all_started(state, attempt, pods):
        # Nothing ends an attempt but its ranks, which wait for the server until they do.
        state.trouble = podinfo.sidecar_trouble(pods, state.now)
        if state.trouble:
            state.requeue.append(podinfo.STEADY_SECONDS)
        return
    state.trouble = find_trouble(state, attempt, job, pods)
    state.requeue.append(max(1.0, state.run.spec.start_deadline_seconds - waited(state, attempt, job)))
    left = patience_left(state, attempt, job, pods)
    if left > 0 and not state.trouble and (not pods or podinfo.trouble(pods)):
        state.requeue.append(left)
