"""The status of a FineTuneJob: what the operator observed, for people and for programs."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.budget import CostStatus, EstimateStatus
from hone.api.gate import GateStatus
from hone.api.meta import Condition, NetworkPolicyStatus, Quantity, Text, Time
from hone.contract.base import Model
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import ArtifactSummary, DownloadedModel, EvaluationSummary, PublishedModel
from hone.contract.search import SearchSummary

MAX_DOWNLOADS = 21
"""Most models and data sets that a job downloads: base, teacher, reward model, 16 sources, validation and test."""


class Phase(StrEnum):
    """Phase of a job, for people; programs should read the conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    FINISHING = "Finishing"
    PUBLISHING = "Publishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class ProgressStatus(Model):
    """Progress of training."""

    step: Annotated[int, Field(ge=0, description="Number of optimizer steps done.")] = 0
    total_steps: Annotated[int, Field(ge=0, description="Number of optimizer steps of the run.")] = 0
    percent: Annotated[int, Field(ge=0, le=100, description="Percentage of the steps done.")] = 0
    epoch: Annotated[
        float | None, Field(description="Number of passes over the training rows done, as a fraction.")
    ] = None
    loss: Annotated[str | None, Field(max_length=32, description="Recent mean training loss, as text.")] = None
    reward: Annotated[
        str | None,
        Field(
            max_length=32,
            description="{rewarded}: recent mean reward of the answers that the model generates, as text.",
        ),
    ] = None
    eval_loss: Annotated[
        str | None, Field(max_length=32, description="Loss of the last evaluation on the validation rows, as text.")
    ] = None
    best_eval_loss: Annotated[
        str | None, Field(max_length=32, description="Lowest loss on the validation rows so far, as text.")
    ] = None
    best_step: Annotated[
        int | None, Field(ge=0, description="Optimizer step at which the loss on the validation rows was lowest.")
    ] = None
    warning: Annotated[
        str | None,
        Field(
            max_length=256,
            description="Warning that the loss on the validation rows rises, and since which step.",
        ),
    ] = None
    tokens_per_second: Annotated[
        float | None, Field(description="Training throughput in tokens per second, over all processes.")
    ] = None
    eta: Annotated[str | None, Field(max_length=32, description="Estimated time left, such as 12m.")] = None
    estimated_completion_time: Annotated[Time | None, Field(description="Estimated time at which training ends.")] = (
        None
    )
    observed_time: Annotated[Time | None, Field(description="Time at which this was observed.")] = None


class PreparationStatus(Model):
    """Progress of preparing models and data."""

    stage: Annotated[
        str,
        Field(
            max_length=32,
            description="What is being done: Downloading, of one model or data set after the other; CheckingRows; or "
            "Tokenizing, which follows it.",
        ),
    ]
    rows: Annotated[int | None, Field(ge=0, description="Number of rows done in this stage.")] = None
    total_rows: Annotated[int | None, Field(ge=0, description="Number of rows of the stage, once it is known.")] = None
    rows_per_second: Annotated[float | None, Field(description="Rows per second in this stage.")] = None
    downloaded_bytes: Annotated[
        int | None, Field(ge=0, description="Bytes of the model or data set that have been downloaded.")
    ] = None
    total_bytes: Annotated[
        int | None, Field(ge=0, description="Bytes of the model or data set, if its origin says that.")
    ] = None
    bytes_per_second: Annotated[int | None, Field(ge=0, description="Bytes per second of this download.")] = None
    eta: Annotated[
        str | None, Field(max_length=32, description="Estimated time until the end of the stage, such as 12m.")
    ] = None
    observed_time: Annotated[Time | None, Field(description="Time at which this was observed.")] = None


class Failure(Model):
    """Why an attempt failed."""

    failure_class: Annotated[
        str, Field(alias="class", max_length=64, description="Failure class, such as OutOfMemory.")
    ]
    reason: Annotated[
        str | None, Field(max_length=64, description="What refused to publish the model, such as AccessDenied.")
    ] = None
    message: Annotated[Text, Field(description="What happened.")]
    hint: Annotated[Text | None, Field(description="How to fix it.")] = None
    rank: Annotated[int | None, Field(description="Global rank of the process that failed first.")] = None
    node: Annotated[int | None, Field(description="Index of the pod of that process.")] = None
    exit_code: Annotated[
        int | None, Field(description="Exit code of the container or process. Negative for a signal.")
    ] = None
    step: Annotated[int | None, Field(description="Last optimizer step that was completed.")] = None
    final: Annotated[bool | None, Field(description="True if a retry cannot help, even if the class allows one.")] = (
        None
    )


class AttemptResult(StrEnum):
    """How an attempt ended."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    REPLACED = "Replaced"
    """The spec was edited meanwhile, so the step is run again."""


MAX_CHANGES = 8
MAX_CHANGE = 256


class AttemptStatus(Model):
    """One attempt at a step: one Kubernetes Job."""

    step: Annotated[str, Field(max_length=16, description="Step of the run: prepare, train, finish or publish.")]
    number: Annotated[int, Field(ge=1, description="Number of the attempt within its step.")]
    job: Annotated[str, Field(max_length=253, description="Name of the Job.")]
    start_time: Annotated[Time | None, Field(description="Time at which the Job was created.")] = None
    end_time: Annotated[Time | None, Field(description="Time at which its end was observed.")] = None
    result: Annotated[
        AttemptResult,
        Field(description="Running, Succeeded, Failed, Suspended, or Replaced if the spec was edited meanwhile."),
    ]
    failure: Annotated[Failure | None, Field(description="Why the attempt failed.")] = None
    restarts: Annotated[
        int | None,
        Field(ge=0, description="How often its processes were restarted within the pods. Not counted as retries."),
    ] = None
    changes: Annotated[
        list[Annotated[str, Field(max_length=MAX_CHANGE)]] | None,
        Field(max_length=MAX_CHANGES, description="What the attempt does differently from the plan, and why."),
    ] = None


class CheckpointStatus(Model):
    """The newest complete checkpoint."""

    step: Annotated[int, Field(ge=0, description="Optimizer step of the checkpoint.")]


class FoundModel(Model):
    """A model of another job, as it was when this job started."""

    job: Annotated[str, Field(max_length=253, description="FineTuneJob that produced the model.")]
    job_uid: Annotated[str, Field(max_length=64, description="UID of that job. A newer job may have the same name.")]
    claim: Annotated[str, Field(max_length=253, description="PersistentVolumeClaim with the model.")]
    digest: Annotated[str, Field(max_length=128, description="Digest of its files.")]
    base_claim: Annotated[
        str | None, Field(max_length=253, description="PersistentVolumeClaim with the base model of an adapter.")
    ] = None
    base_path: Annotated[str | None, Field(max_length=1024, description="Path of the base model on its claim.")] = None
    base_digest: Annotated[str | None, Field(max_length=128, description="Digest of the base model's files.")] = None


class GpuStatus(Model):
    """The GPUs that trainer pods will get, by the labels of the nodes that they may run on."""

    product: Annotated[
        str | None,
        Field(
            max_length=63,
            description="Model of the GPU, such as NVIDIA-A10G; of several, the one with the least memory.",
        ),
    ] = None
    memory: Annotated[Quantity, Field(description="Memory of one GPU; of several models, the least.")]
    largest_memory: Annotated[
        Quantity | None, Field(description="Memory of one GPU of the model with the most, if there are several.")
    ] = None
    compute_capability: Annotated[
        str | None,
        Field(max_length=8, description="Compute capability, such as 8.6; of several models, the lowest."),
    ] = None
    nodes: Annotated[int, Field(ge=1, description="Number of nodes that trainer pods may run on.")]


class MountedImage(Model):
    """An image with a model or data that the pods of this job have mounted."""

    field: Annotated[str, Field(max_length=64, description="Field of the spec with the reference.")]
    reference: Annotated[str, Field(max_length=512, description="The image with its digest.")]


class ArtifactStatus(ArtifactSummary):
    """The tuned model."""

    claim: Annotated[str, Field(max_length=253, description="PersistentVolumeClaim with the model.")]
    model_claim: Annotated[
        str | None,
        Field(max_length=253, description="PersistentVolumeClaim with the base model that an adapter needs."),
    ] = None
    model_path: Annotated[str | None, Field(max_length=1024, description="Path of the base model on its claim.")] = None
    weights_bytes: Annotated[
        int, Field(ge=0, description="Estimated bytes that a server reads at startup, including the base model.")
    ] = 0


class PublishedStatus(PublishedModel):
    """The copy of the tuned model outside of the cluster."""

    time: Annotated[Time | None, Field(description="Time at which it was complete.")] = None


class OutputStatus(Model):
    """What became of the tuned model after it was written to its claim."""

    published: Annotated[
        PublishedStatus | None, Field(description="The newest copy that was published. It is complete.")
    ] = None


class UsageStatus(Model):
    """Resources that the run has used."""

    gpu_seconds: Annotated[
        int, Field(ge=0, description="GPU time of all attempts: seconds multiplied by the number of GPUs.")
    ] = 0
    gpu_hours: Annotated[
        float | None,
        Field(ge=0, description="GPU hours of all attempts, up to the newest progress of the one that runs."),
    ] = None
    retries: Annotated[int, Field(ge=0, description="Number of failures that counted against retry.limit.")] = 0


class FineTuneJobStatus(Model):
    """Observed state of the FineTuneJob."""

    phase: Annotated[
        Phase | None, Field(description="Current phase, to be read by people. Programs should read the conditions.")
    ] = None
    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec that the operator last acted on.")
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Conditions of the job: Validated, Suspended, ProgressAvailable, Promotable, Complete, Failed, "
            "Finished, Ready, Reconciling and Stalled; and Published, if the spec has output.uri.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    dataset: Annotated[DatasetSummary | None, Field(description="Summary of the data that was read.")] = None
    plan: Annotated[Plan | None, Field(description="Settings that training uses, and why they were chosen.")] = None
    preparation: Annotated[
        PreparationStatus | None,
        Field(description="Progress of preparing the data, while that takes more than a few seconds."),
    ] = None
    progress: Annotated[ProgressStatus | None, Field(description="Progress of training.")] = None
    search: Annotated[SearchSummary | None, Field(description="The trials of spec.search.")] = None
    evaluation: Annotated[EvaluationSummary | None, Field(description="Scores of base model and tuned model.")] = None
    score: Annotated[str | None, Field(max_length=64, description="Main metric of the tuned model, as text.")] = None
    improvement: Annotated[
        str | None,
        Field(max_length=64, description="Difference from the base model's score with its interval, as text."),
    ] = None
    gate: Annotated[GateStatus | None, Field(description="What spec.gate decided about the tuned model.")] = None
    attempts: Annotated[
        list[AttemptStatus],
        Field(max_length=20, description="Attempts at the steps, oldest first, at most the 20 newest."),
    ] = []
    failures: Annotated[
        dict[Annotated[str, Field(max_length=64)], int],
        Field(max_length=64, description="Number of failed attempts by step and failure class, such as train.Crashed."),
    ] = {}
    checkpoint: Annotated[CheckpointStatus | None, Field(description="Newest complete checkpoint.")] = None
    artifact: Annotated[ArtifactStatus | None, Field(description="The tuned model, once it has been exported.")] = None
    not_scored: Annotated[
        Text | None,
        Field(
            description="Why the tuned model could not be scored. It is complete nevertheless. It is scored again when "
            "spec.evaluation is edited."
        ),
    ] = None
    output: Annotated[OutputStatus | None, Field(description="Where the tuned model was published.")] = None
    not_published: Annotated[
        Text | None,
        Field(
            description="Why the tuned model could not be published. It is on its claim nevertheless. Publishing is "
            "tried again when spec.output is edited."
        ),
    ] = None
    usage: Annotated[UsageStatus | None, Field(description="Resources that the run has used.")] = None
    estimate: Annotated[EstimateStatus | None, Field(description="GPU hours that training will need.")] = None
    cost: Annotated[CostStatus | None, Field(description="Price of the GPUs, if the administrator has set one.")] = None
    downloads: Annotated[
        list[DownloadedModel] | None,
        Field(max_length=MAX_DOWNLOADS, description="Models and data sets that were downloaded."),
    ] = None
    images: Annotated[
        list[MountedImage] | None,
        Field(max_length=MAX_DOWNLOADS, description="Images with models and data that were mounted."),
    ] = None
    models: Annotated[
        dict[Annotated[str, Field(max_length=64)], FoundModel] | None,
        Field(
            max_length=8,
            description="Models of other jobs that this job reads, by role: model, rewardModel or teacher. Does not "
            "change after the first pod was created.",
        ),
    ] = None
    gpu: Annotated[
        GpuStatus | None,
        Field(
            description="The GPUs that trainer pods will get, where labels of nodes show it. Does not change after "
            "the first pod was created."
        ),
    ] = None
    cache_claim: Annotated[
        str | None,
        Field(
            max_length=253,
            description="Claim of the administrator's choice that holds what was downloaded. Does not change after the "
            "first pod was created.",
        ),
    ] = None
    run_config: Annotated[
        str | None, Field(max_length=253, description="Immutable ConfigMap with the configuration of the pods.")
    ] = None
    prepared_spec: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Digest of the spec that was prepared. If the spec is edited before training starts, it is "
            "prepared again.",
        ),
    ] = None
    scored_spec: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Digest of the spec by which the tuned model is or was scored. If spec.evaluation is edited, "
            "it is scored again.",
        ),
    ] = None
    published_spec: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Digest of the fields of spec.output by which the tuned model is or was published. If they are "
            "edited, it is published again.",
        ),
    ] = None
    network_policy: NetworkPolicyStatus = None
    start_time: Annotated[Time | None, Field(description="Time at which the first trainer Job was created.")] = None
    completion_time: Annotated[Time | None, Field(description="Time at which the job ended.")] = None
