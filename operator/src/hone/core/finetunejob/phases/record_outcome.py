"""Records how the running attempt ended, if it did, and the result of its step."""

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, Failure
from hone.contract.exits import FailureClass
from hone.core import pods as podinfo
from hone.core.children import Standing, standing
from hone.core.finetunejob.policies import failure as failures
from hone.core.finetunejob.policies import image_volumes
from hone.core.finetunejob.policies.adjustments import adjusted_by
from hone.core.finetunejob.resources.jobs import config_of
from hone.core.finetunejob.start import never_started
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status.usage import gpu_seconds
from hone.core.finetunejob.steps import FIRST, STEPS
from hone.core.finetunejob.steps.step import Step
from hone.core.names import SPEC_ANNOTATION
from hone.core.observed import Object, Pod
from hone.core.times import rfc3339

LAGGING_SECONDS = 2.0
"""When to check again if a Job is complete but its pod is not listed as such yet."""


def record_outcome(state: State) -> None:
    """Record the end of the running attempt, and of one that was created just before the operator stopped."""
    _record_running(state)
    while _adopt(state):
        _record_running(state)


def _adopt(state: State) -> bool:
    """Record a Job of ours that exists without being recorded in status: its creation was the last write.

    After an edit that is either the Job that prepares the new spec, or one that the edit overtook.
    """
    if state.running:
        return False
    edited = state.spec_changed
    for step in (FIRST, state.step) if edited else (state.step,):
        if step and (job := _own_job(state, step)):
            _take_over(state, step, job, edited)
            return True
    return False


def _own_job(state: State, step: Step) -> Object | None:
    """The Job of the step's next attempt, where it exists and is ours."""
    job = state.observed.objects.get(state.run.job_ref(step.name, state.next_number(step)))
    return job if standing(state.run.resource, job) == Standing.OURS else None


def _take_over(state: State, step: Step, job: Object, edited: bool) -> None:
    spec = (job["metadata"].get("annotations") or {}).get(SPEC_ANNOTATION)
    state.begin(step, state.next_number(step), job["metadata"].get("creationTimestamp") or rfc3339(state.now), spec)
    if edited and step is not FIRST:
        state.status.start_time = (
            None  # No status recorded the start, so the edit was accepted: the attempt is replaced.
        )
        return
    if edited:
        state.forget_preparation()
    if step is FIRST:
        state.status.prepared_spec = spec
    state.status.run_config = config_of(job) or state.status.run_config


def _record_running(state: State) -> None:
    attempt = state.running
    if attempt is None or state.run.job_ref(attempt.step, attempt.number) not in state.observed.objects:
        return
    job = state.job_of(attempt)
    pods = podinfo.of_job(state.observed.pods, attempt.job)
    results = [result for pod in pods if (result := failures.result_of(pod))]
    STEPS[attempt.step].take_part(state.run, state.status, [part for pod in pods for part in failures.results_of(pod)])
    attempt = state.replace(attempt, adjusted_by(attempt, results))
    if job is None:
        _record_missing(state, attempt, pods)
    elif failures.job_condition(job, "Failed"):
        state.count_gpu_seconds(gpu_seconds(state, attempt, job, pods))
        lost = image_volumes.dropped(state.run, STEPS[attempt.step], job)
        state.end(attempt, AttemptResult.FAILED, lost or failures.cause(job, pods))
    elif failures.job_condition(job, "Complete"):
        if not all(podinfo.is_over(pod) for pod in pods):
            state.requeue.append(LAGGING_SECONDS)
            return
        state.count_gpu_seconds(gpu_seconds(state, attempt, job, pods))
        _take_result(state, attempt, pods)


def _record_missing(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> None:
    """The Job is gone: we deleted it and could not record why, or somebody else deleted it."""
    state.count_gpu_seconds(gpu_seconds(state, attempt, None, pods))
    if state.run.spec.suspend:
        state.end(attempt, AttemptResult.SUSPENDED)
    elif state.spec_changed:
        state.end(attempt, AttemptResult.REPLACED)
    elif pods and (failure := never_started(state, attempt, None, pods)):
        state.end(attempt, AttemptResult.FAILED, failure)
    else:
        failure = failures.make(FailureClass.PREEMPTED, f"Job {attempt.job} was deleted")
        state.end(attempt, AttemptResult.FAILED, failure)


def _take_result(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> None:
    """Record the result of a step that succeeded."""
    results = [result for pod in pods if (result := failures.result_of(pod)) and result.verdict is None]
    if STEPS[attempt.step].take_result(state.run, state.status, results):
        state.end(attempt, AttemptResult.SUCCEEDED)
    else:
        state.end(attempt, AttemptResult.FAILED, _no_result(state, attempt, pods))


def _no_result(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Failure:
    """prepare and finish are idempotent, so they run again if their result was missed; training does not."""
    if any(podinfo.terminated(pod) for pod in pods):
        return failures.make(
            FailureClass.CRASHED,
            f"{attempt.step} ended with exit code 0 but left no result that this operator can read",
            hint=f"use the trainer image of the operator's release; this job uses {state.run.image}",
        )
    return failures.make(FailureClass.NODE_LOST, f"the {attempt.step} pod was deleted before its result was read")
