"""Phase 1: how the running attempt ended, if it did, and what its step gave."""

from typing import Any

from hone.api.finetunejob_status import ArtifactStatus, AttemptResult, AttemptStatus, CheckpointStatus, Failure
from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.core import pods as podinfo
from hone.core.children import Standing, standing
from hone.core.finetunejob.policies import failure as failures
from hone.core.finetunejob.policies.adjustments import adjusted_by
from hone.core.finetunejob.resources.jobs import config_of
from hone.core.finetunejob.run import Step
from hone.core.finetunejob.start import never_started
from hone.core.finetunejob.state import State
from hone.core.finetunejob.status import usage
from hone.core.finetunejob.status.progress import finished
from hone.core.names import SPEC_ANNOTATION
from hone.core.observed import Object, Pod
from hone.core.times import rfc3339

LAGGING_SECONDS = 2.0
"""When to look again where a Job is complete but its pod is not seen so yet."""


def settle(state: State) -> None:
    """Take in the end of the running attempt; and of one that was made just before the operator ended."""
    _settle_running(state)
    while _adopt(state):
        _settle_running(state)


def _adopt(state: State) -> bool:
    """Record a Job of ours that exists though no status tells of it: its creation was the last thing done.

    After an edit that is either the Job that prepares the new spec, or one that the edit overtook.
    """
    if state.running:
        return False
    edited = state.spec_changed
    for step in (Step.PREPARE, state.step) if edited else (state.step,):
        if step and (job := _own_job(state, step)):
            _take_over(state, step, job, edited)
            return True
    return False


def _own_job(state: State, step: Step) -> Object | None:
    """The Job of the step's next attempt, where it exists and is ours."""
    job = state.observed.objects.get(state.run.job_ref(step, state.next_number(step)))
    return job if standing(state.run.resource, job) == Standing.OURS else None


def _take_over(state: State, step: Step, job: Object, edited: bool) -> None:
    state.begin(step, state.next_number(step), job["metadata"].get("creationTimestamp") or rfc3339(state.now))
    if edited and step != Step.PREPARE:
        state.start_time = None  # No status told of the start, so the edit was let in: the attempt is replaced.
        return
    if edited:
        state.forget_preparation()
    if step == Step.PREPARE:
        state.prepared_spec = (job["metadata"].get("annotations") or {}).get(SPEC_ANNOTATION)
    state.run_config = config_of(job) or state.run_config


def _settle_running(state: State) -> None:
    attempt = state.running
    if attempt is None or state.run.job_ref(attempt.step, attempt.number) not in state.observed.objects:
        return
    job = state.job_of(attempt)
    pods = podinfo.of_job(state.observed.pods, attempt.job)
    results = [result for pod in pods if (result := failures.result_of(pod))]
    attempt = state.replace(attempt, adjusted_by(attempt, results))
    if job is None:
        _settle_missing(state, attempt, pods)
    elif failures.job_condition(job, "Failed"):
        usage.count(state, attempt, job, pods)
        state.end(attempt, AttemptResult.FAILED, failures.cause(job, pods))
    elif failures.job_condition(job, "Complete"):
        if not all(podinfo.is_over(pod) for pod in pods):
            state.requeue.append(LAGGING_SECONDS)
            return
        usage.count(state, attempt, job, pods)
        _take_result(state, attempt, pods)


def _settle_missing(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> None:
    """The Job is gone: we deleted it and could not write down why, or somebody else did."""
    usage.count(state, attempt, None, pods)
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
    """Take in what a step that ended well gave."""
    found = [result for pod in pods if (result := failures.result_of(pod)) and result.verdict is None]
    step = Step(attempt.step)
    result = found[0] if found else StepResult(step=step)
    if step == Step.TRAIN:
        final = next((each.final_step for each in found if each.final_step is not None), None)
        state.progress = finished(state.progress, state.plan, final)
        if final is not None:
            # Saved as the pods ended, after the last reading.
            state.checkpoint = CheckpointStatus(step=final)
    elif step == Step.PREPARE and result.plan and result.dataset:
        state.plan, state.dataset = result.plan, result.dataset
    elif step == Step.FINISH and result.artifact:
        state.evaluation = result.evaluation
        state.artifact = _artifact(state, result)
    else:
        state.end(attempt, AttemptResult.FAILED, _no_result(state, attempt, pods))
        return
    state.end(attempt, AttemptResult.SUCCEEDED)


def _no_result(state: State, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Failure:
    """prepare and finish do nothing twice, so they run again where their result was missed; training never does."""
    if any(podinfo.terminated(pod) for pod in pods):
        return failures.make(
            FailureClass.CRASHED,
            f"{attempt.step} ended with exit code 0 but left no result that this operator can read",
            hint=f"use the trainer image of the operator's release; this one is {state.run.image}",
        )
    return failures.make(FailureClass.NODE_LOST, f"the pod of {attempt.step} is gone, and its result with it")


def _artifact(state: State, result: StepResult) -> ArtifactStatus:
    run, summary = state.run, result.artifact
    if summary is None:
        raise ValueError("the result holds no artifact")
    artifact = ArtifactStatus(**summary.model_dump(), claim=run.output_claim, weights_bytes=summary.size_bytes)
    if summary.kind != "Adapter":
        return artifact
    width = 4 if state.plan and state.plan.precision == "float32" else 2
    base = state.plan.parameters * width if state.plan else 0
    update: dict[str, Any] = {"weights_bytes": summary.size_bytes + base}
    if claim := run.spec.model.claim:  # over another job's model no adapter is left: finish merges them
        update |= {"model_claim": claim.name, "model_path": claim.path}
    return artifact.model_copy(update=update)
