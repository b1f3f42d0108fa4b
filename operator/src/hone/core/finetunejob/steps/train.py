"""Train: a gang of pods, each with a launcher that starts the ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone.api.finetunejob_status import CheckpointStatus, FineTuneJobStatus, Phase, ProgressStatus
from hone.contract.plan import Plan
from hone.contract.results import StepResult
from hone.contract.runconfig import MASTER_ENV, METRICS_PORT
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import TRAIN, WORKSPACE_DIRECTORY, Run
from hone.core.finetunejob.sources.models import written_models
from hone.core.finetunejob.steps import answer_server
from hone.core.finetunejob.steps.compute import compute_resources
from hone.core.finetunejob.steps.step import Step, has_succeeded, removed_later
from hone.core.finetunejob.steps.validation import best_evaluation
from hone.core.podspec import ClaimMount, Mount


def _is_done(run: Run, status: FineTuneJobStatus) -> bool:
    return has_succeeded(status, TRAIN)


def _take_result(run: Run, status: Draft, results: Sequence[StepResult]) -> bool:
    """Training is never repeated because of a missing result, so a run without one counts as complete."""
    last = next((result for result in results if result.final_step is not None), None)
    final = last.final_step if last else None
    status.progress = _finished(status.progress, status.plan, final)
    if last and last.best_step is not None:
        status.progress = status.progress.model_copy(update=best_evaluation(last))
    if last and last.search is not None:
        status.search = last.search
    if final is not None:
        # Saved when the pods ended, after the last progress reading.
        status.checkpoint = CheckpointStatus(step=final)
    return True


def _finished(before: ProgressStatus | None, plan: Plan | None, final_step: int | None) -> ProgressStatus:
    """Progress once training is complete: the last figures known, at the final step."""
    before = before or ProgressStatus()
    total = before.total_steps or (plan.total_steps if plan else 0)
    step = final_step if final_step is not None else total
    return before.model_copy(
        update={"step": step, "total_steps": total, "percent": 100, "eta": None, "estimated_completion_time": None}
    )


def _phase(has_attempt: bool, has_started: bool) -> Phase:
    return Phase.TRAINING if has_started else Phase.QUEUED


def _pods(run: Run) -> int:
    return run.compute.nodes


def _gpus(run: Run) -> int:
    return run.training_gpus


def _resources(run: Run) -> dict[str, Any]:
    memory = run.host_memory_bytes if run.compute.gpus_per_node else 0
    return compute_resources(run, run.compute.gpus_per_node, run.processes_per_node, least_memory=memory)


def _env(run: Run, job: str) -> Mapping[str, str]:
    return {MASTER_ENV: f"{job}-0.{run.service}"} if run.compute.nodes > 1 else {}


def _always(run: Run) -> bool:
    """A reward function, or the code of an image that the user has built."""
    return True


def _workspace(run: Run) -> Sequence[Mount]:
    """The run's own directory; what prepare wrote for all jobs, read-only; and nothing of other jobs."""
    claim = run.workspace_claim
    own = ClaimMount(claim, f"{WORKSPACE_DIRECTORY}/{run.directory}", read_only=False, sub_path=run.directory)
    return (own, ClaimMount(claim, f"{WORKSPACE_DIRECTORY}/prepared", sub_path="prepared"), *written_models(run))


def _pod_spec(run: Run) -> Mapping[str, Any]:
    return {"subdomain": run.service} if run.compute.nodes > 1 else {}


def _job_spec(run: Run) -> Mapping[str, Any]:
    seconds = run.spec.active_deadline_seconds
    return {**removed_later(run), **({"activeDeadlineSeconds": seconds} if seconds else {})}


def _shm_size(run: Run) -> str:
    """For the libraries by which the ranks of a pod exchange tensors, and those of a server next to them."""
    served = run.generation_gpus * answer_server.SHM_GIB if run.has_answer_server else 0
    return f"{run.processes_per_node * (4 if run.compute.gpus_per_node else 1) + served}Gi"


def _mounts(run: Run) -> Sequence[Mount]:
    return (answer_server.ADAPTERS,) if run.has_answer_server else ()


def _grace_seconds(run: Run) -> int:
    return run.checkpoint.grace_period_seconds


TRAIN_STEP = Step(
    name=TRAIN,
    module="hone_trainer.launch",
    is_done=_is_done,
    take_result=_take_result,
    phase=_phase,
    resources=_resources,
    sidecar=answer_server.sidecar,
    pods=_pods,
    gpus=_gpus,
    mounts=_mounts,
    workspace=_workspace,
    env=_env,
    runs_users_code=_always,
    ports=({"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},),
    pod_spec=_pod_spec,
    job_spec=_job_spec,
    joins_queue=True,
    shm_size=_shm_size,
    grace_seconds=_grace_seconds,
)
