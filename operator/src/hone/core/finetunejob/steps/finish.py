"""Finish: one pod that exports the artifact, then scores it. The artifact counts as soon as it is written.

Once there is one, the run cannot fail any more: where it cannot be scored, the status says why. If `spec.evaluation` is
edited afterwards, the step runs again, and does only what is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hone.api.finetunejob_status import ArtifactStatus, FineTuneJobStatus, Phase
from hone.contract.judge import JUDGE_KEY
from hone.contract.results import ArtifactSummary, StepResult
from hone.contract.runconfig import IMAGE_ENV
from hone.core import reported
from hone.core.downloads import SecretKey
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import FINISH, Run
from hone.core.finetunejob.sources.benchmarks import benchmark_sources
from hone.core.finetunejob.sources.models import written_models
from hone.core.finetunejob.sources.rewards import reward_sources
from hone.core.finetunejob.sources.scorers import scorer_sources
from hone.core.finetunejob.steps.compute import compute_resources
from hone.core.finetunejob.steps.step import Step, has_succeeded, removed_later
from hone.core.podspec import ClaimMount, Mount

OUTPUT_DIRECTORY = "/mnt/output"


def is_current(run: Run, status: FineTuneJobStatus) -> bool:
    """Whether the newest attempt to score had the evaluation of the spec, which may be edited at any time."""
    return (status.scored_spec or status.prepared_spec) == run.spec_digest


def _is_done(run: Run, status: FineTuneJobStatus) -> bool:
    has_ended = has_succeeded(status, FINISH) or status.not_scored is not None
    return status.artifact is not None and has_ended and is_current(run, status)


def _take_result(run: Run, status: Draft, results: Sequence[StepResult]) -> bool:
    result = results[0] if results else None
    if result is None or not result.artifact:
        return False
    status.evaluation = result.evaluation
    return True


def _take_artifact(run: Run, status: Draft, results: Sequence[StepResult]) -> None:
    for result in results:
        if result.artifact:
            status.artifact = _artifact(run, status, result.artifact)


def _leave_unscored(status: Draft, why: str) -> bool:
    if status.artifact is None:
        return False
    status.not_scored = reported.text(why)
    return True


def _artifact(run: Run, status: FineTuneJobStatus, summary: ArtifactSummary) -> ArtifactStatus:
    artifact = ArtifactStatus(**summary.model_dump(), claim=run.output_claim, weights_bytes=summary.size_bytes)
    if summary.kind != "Adapter":
        return artifact
    width = 4 if status.plan and status.plan.precision == "float32" else 2
    base = status.plan.parameters * width if status.plan else 0
    update: dict[str, Any] = {"weights_bytes": summary.size_bytes + base}
    if claim := run.spec.model.claim:  # with another job's model as base, finish has merged the adapter
        update |= {"model_claim": claim.name, "model_path": claim.path}
    return artifact.model_copy(update=update)


def _phase(has_attempt: bool, has_started: bool) -> Phase:
    return Phase.FINISHING


def _resources(run: Run) -> dict[str, Any]:
    # It may hold the whole model that all ranks of a training pod shared.
    return compute_resources(run, run.scoring_gpus, ranks=1, limit_ranks=run.processes_per_node)


def _mounts(run: Run) -> list[Mount]:
    # Those on the workspace are in its mount.
    cached = [
        mount for mount in written_models(run) if isinstance(mount, ClaimMount) and mount.claim == run.cache_claim
    ]
    scored = [mount for source in (*benchmark_sources(run), *scorer_sources(run)) for mount in source.mounts]
    return [ClaimMount(run.output_claim, OUTPUT_DIRECTORY, read_only=False), *cached, *scored]


def _env(run: Run, job: str) -> Mapping[str, str]:
    return {IMAGE_ENV: run.image}


def _secrets(run: Run) -> Mapping[str, SecretKey]:
    judge = run.evaluation.judge
    if judge is None or judge.api_key_secret_ref is None:
        return {}
    # Without it the judge refuses to answer, and the status says so: the model must be exported all the same.
    return {JUDGE_KEY: SecretKey(judge.api_key_secret_ref.name, JUDGE_KEY, optional=True)}


def _scores_with_functions(run: Run) -> bool:
    return bool(reward_sources(run) or run.evaluation.scorers)


FINISH_STEP = Step(
    name=FINISH,
    module="hone_trainer.finish",
    is_done=_is_done,
    take_result=_take_result,
    take_part=_take_artifact,
    end_without=_leave_unscored,
    part="export",
    phase=_phase,
    job_spec=removed_later,
    joins_queue=True,
    resources=_resources,
    gpus=lambda run: run.scoring_gpus,
    mounts=_mounts,
    env=_env,
    runs_users_code=_scores_with_functions,
    secrets=_secrets,
)
