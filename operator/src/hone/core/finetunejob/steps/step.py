"""The type of a step: everything in which prepare, train, finish and publish differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.api.finetunejob_status import AttemptResult, AttemptStatus, FineTuneJobStatus, Phase
from hone.contract.results import StepResult
from hone.core.downloads import SecretKey
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import WORKSPACE_DIRECTORY, Run
from hone.core.podspec import ClaimMount, InitContainer, Mount

GRACE_SECONDS = 30
"""Grace period of a step that starts again from its cached results."""


def no_mounts(run: Run) -> Sequence[Mount]:
    """Only the RunConfig, the models and the workspace."""
    return ()


def whole_workspace(run: Run) -> Sequence[Mount]:
    """The workspace with what jobs share on it."""
    return (ClaimMount(run.workspace_claim, WORKSPACE_DIRECTORY, read_only=False),)


def _no_part(run: Run, status: Draft, results: Sequence[StepResult]) -> None:
    """The step's result is one."""


def _run_fails(status: Draft, why: str) -> bool:
    return False


def _none(run: Run) -> int:
    return 0


def _no_sidecar(run: Run) -> InitContainer | None:
    return None


def _one(run: Run) -> int:
    return 1


def _short(run: Run) -> int:
    return GRACE_SECONDS


def _never(run: Run) -> bool:
    return False


def _small(run: Run) -> str:
    return "1Gi"


def _nothing(run: Run) -> Mapping[str, Any]:
    return {}


def _no_secrets(run: Run) -> Mapping[str, SecretKey]:
    return {}


def _spec_digest(run: Run) -> str | None:
    return run.spec_digest


REMOVAL_SECONDS = 24 * 3600
"""When Kubernetes removes a Job that has ended, with its pods and their logs."""


def removed_later(run: Run) -> Mapping[str, Any]:
    """The Job is removed some time after it has ended.

    If the operator was down for all that time, the attempt counts as lost, and the step is repeated: it finds what it
    wrote, as training finds its final checkpoint, and ends at once.
    """
    return {"ttlSecondsAfterFinished": REMOVAL_SECONDS}


def _no_variables(run: Run, job: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Step:
    """One step of a run. A callable takes the run.

    Attributes:
        name: its name in labels, names and status.
        module: the trainer's module that its pods run.
        is_done: whether the status holds its result.
        take_result: puts the results of its pods that succeeded into the status; False if there are none.
        take_part: puts into the status what one of its containers has achieved, however the others end.
        end_without: ends the step although it will never have its result, given why; False if the run fails by that.
        part: name of an init container that runs the module for what `take_part` takes (`Attempt.export_only`).
        sidecar: a container that runs alongside the one of the pod, and ends with it.
        phase: the job's phase at this step, given whether it has an attempt, and whether all pods have started.
        resources: resources of a pod.
        pods: number of pods.
        gpus: GPUs that all of them hold together.
        mounts: their mounts in addition to the RunConfig, the models and the workspace.
        workspace: how they mount the workspace.
        env: variables, given the name of the Job as well.
        runs_users_code: whether its pods run code of the user's; only those get a variable from a Secret by default.
        ports: ports of a container.
        pod_spec: further fields of the pod's spec.
        job_spec: further fields of the Job's spec.
        joins_queue: whether its Job waits in the queue that the spec names.
        shm_size: size of /dev/shm in a pod.
        grace_seconds: seconds between SIGTERM and SIGKILL.
        secrets: variables from Secrets that its pods alone need, by name.
        digest: digest of what the spec says to it; an attempt by another one is replaced, and leaves nothing to do.
        backoff_seconds: wait before the next attempt after a failure of any class, doubled with each.
        start_hint: what to check if its pods do not start; None: the hint of the failure class.
        reads_models: whether its pods mount the models.
        reads_originals: whether it reads the original sources, of which later steps see only the prepared form.
    """

    name: str
    module: str
    is_done: Callable[[Run, FineTuneJobStatus], bool]
    take_result: Callable[[Run, Draft, Sequence[StepResult]], bool]
    phase: Callable[[bool, bool], Phase]
    resources: Callable[[Run], dict[str, Any]]
    take_part: Callable[[Run, Draft, Sequence[StepResult]], None] = _no_part
    end_without: Callable[[Draft, str], bool] = _run_fails
    part: str | None = None
    sidecar: Callable[[Run], InitContainer | None] = _no_sidecar
    pods: Callable[[Run], int] = _one
    gpus: Callable[[Run], int] = _none
    mounts: Callable[[Run], Sequence[Mount]] = no_mounts
    workspace: Callable[[Run], Sequence[Mount]] = whole_workspace
    env: Callable[[Run, str], Mapping[str, str]] = _no_variables
    runs_users_code: Callable[[Run], bool] = _never
    ports: Sequence[Mapping[str, Any]] = ()
    pod_spec: Callable[[Run], Mapping[str, Any]] = _nothing
    job_spec: Callable[[Run], Mapping[str, Any]] = _nothing
    joins_queue: bool = False
    shm_size: Callable[[Run], str] = _small
    grace_seconds: Callable[[Run], int] = _short
    secrets: Callable[[Run], Mapping[str, SecretKey]] = _no_secrets
    digest: Callable[[Run], str | None] = _spec_digest
    backoff_seconds: float = 0.0
    start_hint: str | None = None
    reads_models: bool = True
    reads_originals: bool = False


def last_attempt(status: FineTuneJobStatus, step: str) -> AttemptStatus | None:
    """The newest attempt at the step, or None."""
    return next((attempt for attempt in reversed(status.attempts) if attempt.step == step), None)


def next_number(status: FineTuneJobStatus, step: str) -> int:
    """The number of the step's next attempt."""
    last = last_attempt(status, step)
    return last.number + 1 if last else 1


def has_succeeded(status: FineTuneJobStatus, step: str) -> bool:
    """Whether the newest attempt at the step succeeded."""
    last = last_attempt(status, step)
    return last is not None and last.result == AttemptResult.SUCCEEDED
