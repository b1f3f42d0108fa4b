"""The status of a FineTuneJob: what the operator observed, for people and for programs."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.meta import Condition, Text, Time
from hone.contract.base import Model
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import ArtifactSummary, EvaluationSummary


class Phase(StrEnum):
    """Where a job stands, for people; programs read the conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    FINISHING = "Finishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class ProgressStatus(Model):
    """Where training stands."""

    step: Annotated[int, Field(ge=0, description="Optimizer steps done.")] = 0
    total_steps: Annotated[int, Field(ge=0, description="Optimizer steps of the run.")] = 0
    percent: Annotated[int, Field(ge=0, le=100, description="Share of the steps done.")] = 0
    epoch: Annotated[float | None, Field(description="Passes over the training rows done.")] = None
    loss: Annotated[str | None, Field(max_length=32, description="Recent training loss, as text for the column.")] = (
        None
    )
    reward: Annotated[
        str | None, Field(max_length=32, description="{rewarded}: recent mean reward of the model's own answers.")
    ] = None
    eval_loss: Annotated[str | None, Field(max_length=32, description="Recent loss on the validation rows.")] = None
    tokens_per_second: Annotated[float | None, Field(description="Tokens per second over all processes.")] = None
    eta: Annotated[str | None, Field(max_length=32, description="Time left, such as 12m.")] = None
    estimated_completion_time: Annotated[Time | None, Field(description="When training is expected to end.")] = None
    observed_time: Annotated[Time | None, Field(description="When this was observed.")] = None


class Failure(Model):
    """Why an attempt ended."""

    failure_class: Annotated[str, Field(alias="class", max_length=64, description="The failure class.")]
    message: Annotated[Text, Field(description="What happened.")]
    hint: Annotated[Text | None, Field(description="What to do about it.")] = None
    rank: Annotated[int | None, Field(description="Global rank that failed first.")] = None
    node: Annotated[int | None, Field(description="Index of that rank's pod.")] = None
    exit_code: Annotated[int | None, Field(description="Exit code of the container or process.")] = None
    step: Annotated[int | None, Field(description="Last optimizer step that was finished.")] = None
    final: Annotated[
        bool | None, Field(description="True where trying again cannot help, whatever the class says.")
    ] = None


class AttemptResult(StrEnum):
    """How an attempt ended."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    REPLACED = "Replaced"
    """The spec was edited before training started, so the step is done anew."""


MAX_CHANGES = 8
MAX_CHANGE = 256


class AttemptStatus(Model):
    """One attempt at one step: a Kubernetes Job of ours."""

    step: Annotated[str, Field(max_length=16, description="prepare, train or finish.")]
    number: Annotated[int, Field(ge=1, description="Number of the attempt within its step.")]
    job: Annotated[str, Field(max_length=253, description="Name of its Job.")]
    start_time: Annotated[Time | None, Field(description="When its Job was made.")] = None
    end_time: Annotated[Time | None, Field(description="When its end was observed.")] = None
    result: Annotated[AttemptResult, Field(description="Running, Succeeded, Failed, Suspended or Replaced.")]
    failure: Annotated[Failure | None, Field(description="Why it failed.")] = None
    restarts: Annotated[
        int | None,
        Field(ge=0, description="How often its processes were started anew within their pod; not counted as retries."),
    ] = None
    changes: Annotated[
        list[Annotated[str, Field(max_length=MAX_CHANGE)]] | None,
        Field(max_length=MAX_CHANGES, description="What it does otherwise than planned, and why."),
    ] = None


class CheckpointStatus(Model):
    """The newest whole checkpoint."""

    step: Annotated[int, Field(ge=0, description="Optimizer step it was written at.")]


class FoundModel(Model):
    """A model that another job made, as it was found before the first pod was made."""

    job: Annotated[str, Field(max_length=253, description="FineTuneJob that made it.")]
    job_uid: Annotated[str, Field(max_length=64, description="Its uid: another job may have its name by now.")]
    claim: Annotated[str, Field(max_length=253, description="PersistentVolumeClaim that holds it.")]
    digest: Annotated[str, Field(max_length=128, description="Digest over its files.")]
    base_claim: Annotated[
        str | None, Field(max_length=253, description="PersistentVolumeClaim of an adapter's base model.")
    ] = None
    base_path: Annotated[str | None, Field(max_length=1024, description="Path of the base model in its claim.")] = None
    base_digest: Annotated[str | None, Field(max_length=128, description="Digest of the base model's files.")] = None


class ArtifactStatus(ArtifactSummary):
    """The tuned model."""

    claim: Annotated[str, Field(max_length=253, description="PersistentVolumeClaim that holds it.")]
    model_claim: Annotated[
        str | None,
        Field(max_length=253, description="PersistentVolumeClaim of the base model, which an adapter needs."),
    ] = None
    model_path: Annotated[str | None, Field(max_length=1024, description="Path of the base model in its claim.")] = None
    weights_bytes: Annotated[
        int, Field(ge=0, description="Estimated bytes that a server reads at its start, the base model's included.")
    ] = 0


class UsageStatus(Model):
    """What the run has used."""

    gpu_seconds: Annotated[int, Field(ge=0, description="Seconds times GPUs of all attempts.")] = 0
    retries: Annotated[int, Field(ge=0, description="Failures that counted against retry.limit.")] = 0


class FineTuneJobStatus(Model):
    """What was observed."""

    phase: Annotated[Phase | None, Field(description="Where the job stands, for people.")] = None
    observed_generation: Annotated[int | None, Field(ge=0, description="Generation of the spec last acted on.")] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Observations.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    dataset: Annotated[DatasetSummary | None, Field(description="What was found in the data.")] = None
    plan: Annotated[Plan | None, Field(description="What training does, and why.")] = None
    progress: Annotated[ProgressStatus | None, Field(description="Where training stands.")] = None
    evaluation: Annotated[EvaluationSummary | None, Field(description="Scores of base and tuned model.")] = None
    score: Annotated[
        str | None, Field(max_length=64, description="The main metric of the tuned model, for the column.")
    ] = None
    improvement: Annotated[
        str | None, Field(max_length=64, description="Its difference from the base, for the column.")
    ] = None
    attempts: Annotated[list[AttemptStatus], Field(max_length=20, description="The newest attempts.")] = []
    failures: Annotated[
        dict[Annotated[str, Field(max_length=64)], int],
        Field(max_length=64, description="Attempts that failed, by step and failure class, such as train.Crashed."),
    ] = {}
    checkpoint: Annotated[CheckpointStatus | None, Field(description="The newest whole checkpoint.")] = None
    artifact: Annotated[ArtifactStatus | None, Field(description="The tuned model.")] = None
    usage: Annotated[UsageStatus | None, Field(description="What the run has used.")] = None
    models: Annotated[
        dict[Annotated[str, Field(max_length=64)], FoundModel] | None,
        Field(
            max_length=8,
            description="Models of other jobs that this one reads, by what it reads them as; kept once a pod was made.",
        ),
    ] = None
    run_config: Annotated[
        str | None, Field(max_length=253, description="ConfigMap with what the pods are told; never changes.")
    ] = None
    prepared_spec: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Digest of the spec that was prepared; until the start, another is prepared anew.",
        ),
    ] = None
    start_time: Annotated[Time | None, Field(description="When the first trainer Job was made.")] = None
    completion_time: Annotated[Time | None, Field(description="When the job ended.")] = None
