"""FineTuneJob: a base model, data, an objective and a method in; a tuned model with its scores out."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api import meta
from hone.api.meta import (
    AccessMode,
    Condition,
    ObjectName,
    PodSettings,
    Quantity,
    ResourceRequirements,
    Text,
    Time,
)
from hone.contract.base import Model
from hone.contract.objectives import OBJECTIVES, ObjectiveFacts
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import ArtifactSummary, EvaluationSummary
from hone.contract.settings import (
    Balance,
    Checkpoint,
    DataFormat,
    Evaluation,
    Hyperparameters,
    Method,
    Objective,
    OnScarceData,
    TrainOn,
)

KIND = "FineTuneJob"
PLURAL = "finetunejobs"

NO_DOTS = {
    "x-kubernetes-validations": [{"rule": "!self.split('/').exists(p, p == '..')", "message": "must not contain '..'"}]
}

ColumnName = Annotated[str, Field(min_length=1, max_length=128)]

_ROWS_ON_A_CLAIM = (
    "Rows on a PersistentVolumeClaim: a file (JSON Lines, JSON array, CSV, TSV, Parquet; text also as .gz or .zst), a "
    "directory of such files, a glob such as data/*.jsonl, or a folder that Dataset.save_to_disk wrote."
)
_ROWS_IN_A_CONFIG_MAP = "A file of any of these kinds in a ConfigMap, at most 1 MiB."


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


class ClaimPath(Model):
    """A file or directory on a PersistentVolumeClaim of the namespace, mounted read-only."""

    name: Annotated[ObjectName, Field(description="Name of the PersistentVolumeClaim.")]
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^[^/].*$",
            json_schema_extra=NO_DOTS,
            description="Path inside the volume, without a leading slash.",
        ),
    ]


class ConfigMapKey(Model):
    """One key of a ConfigMap of the namespace; at most 1 MiB."""

    name: Annotated[ObjectName, Field(description="Name of the ConfigMap.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key of the data.")
    ]


class ModelSource(Model):
    """The base model to start from: a directory with config, weights and tokenizer as transformers saves them."""

    claim: Annotated[ClaimPath, Field(description="A directory on a PersistentVolumeClaim.")]


class DataSource(Model):
    """Where rows are read from."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None


class HeldOut(Model):
    """Rows held out of training: a source of their own, or a fraction of the training rows."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None
    fraction: Annotated[
        float | None,
        Field(gt=0, le=0.5, description="Share of the training rows, chosen by a hash of the prompt."),
    ] = None


class Dataset(Model):
    """The rows to learn from, and how to read them."""

    train: Annotated[DataSource, Field(description="Rows to train on.")]
    validation: Annotated[
        HeldOut | None, Field(description="Rows that steer training; default: a tenth of the training rows.")
    ] = None
    test: Annotated[
        HeldOut | None, Field(description="Rows that only score the result; default: a tenth of the training rows.")
    ] = None
    format: Annotated[
        DataFormat,
        Field(
            description="How a row is written. Auto: Messages for a 'messages' column, PromptCompletion for "
            "'prompt' and 'completion', TextLabel for 'text' and 'label' (objective Classification), Preference for "
            "'chosen' and 'rejected', whose prompt is 'prompt', or what both begin with (objectives Reward and DPO), "
            "UnpairedPreference for 'prompt', 'completion' and a boolean 'label' (objective KTO), ShareGPT for "
            "'conversations', Alpaca for 'instruction' and 'output'."
        ),
    ] = DataFormat.AUTO
    columns: Annotated[
        dict[ColumnName, ColumnName] | None,
        Field(
            max_length=16,
            description="What the rows name their columns, by Hone's name of each, such as prompt: question; "
            "for columns that are named otherwise.",
        ),
    ] = None
    train_on: Annotated[
        TrainOn | None,
        Field(description="Tokens that carry loss; default: Assistant for conversations, else Completion."),
    ] = None
    balance: Annotated[
        Balance | None,
        Field(
            description="Classification, KTO: Weight gives the rows of scarce classes more weight in the loss. "
            "Classification: n / (k * n_c) with n rows, k classes and n_c rows of the class; default: where the "
            "largest class has more than 3 times the rows of the smallest. KTO: so that the good rows together weigh "
            "1 to 4/3 times the bad ones; default: where they do not by themselves."
        ),
    ] = None
    min_samples: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="Training rows below which onScarceData applies.")
    ] = 500
    on_scarce_data: Annotated[
        OnScarceData, Field(description="With fewer training rows than minSamples: warn, or fail before training.")
    ] = OnScarceData.WARN


class Compute(Model):
    """The pods that train, and what each may use."""

    nodes: Annotated[int, Field(ge=1, le=1024, description="Trainer pods.")] = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64, description="GPUs per pod; 0 trains on the CPU.")] = 1
    processes_per_node: Annotated[
        int | None, Field(ge=1, le=64, description="Processes per pod; default: one per GPU, and one on the CPU.")
    ] = None
    gpu_resource: Annotated[str, Field(min_length=1, max_length=253, description="Name of the GPU resource.")] = (
        "nvidia.com/gpu"
    )
    gpu_memory: Annotated[
        Quantity | None,
        Field(description="Memory of one GPU, such as 80Gi; lets the plan say before queueing whether it fits."),
    ] = None
    zero_stage: Annotated[
        int | None,
        Field(
            json_schema_extra={"enum": [0, 2, 3]},
            ge=0,
            le=3,
            description="DeepSpeed's ZeRO stage: 0 is plain DDP, 2 shards gradients and optimizer state, 3 the weights "
            "too. Default: the first that fits.",
        ),
    ] = None
    micro_batch_size: Annotated[
        int | None,
        Field(ge=1, le=65_536, description="Rows per process and forward pass; default: chosen by the plan."),
    ] = None
    image: Annotated[
        str | None, Field(min_length=1, max_length=1024, description="Trainer image; default: the operator's.")
    ] = None
    resources: Annotated[
        ResourceRequirements | None, Field(description="CPU and memory per trainer pod; GPUs come from gpusPerNode.")
    ] = None
    pod: Annotated[PodSettings | None, Field(description="Settings of all the job's pods.")] = None


class Prepare(Model):
    """The CPU pod that checks data and plan before GPUs are queued."""

    resources: Annotated[ResourceRequirements | None, Field(description="CPU and memory of the pod.")] = None


class Retry(Model):
    """How often training is tried again after failures that count (see the failure classes in the documentation)."""

    limit: Annotated[int, Field(ge=0, le=100, description="Failures of its own that a run survives.")] = 3


class Workspace(Model):
    """Scratch space: prepared data and checkpoints. A claim of the job's own unless claimName names one."""

    size: Annotated[Quantity | None, Field(description="Size of the claim made for this job; default: 50Gi.")] = None
    storage_class_name: Annotated[
        ObjectName | None, Field(description="StorageClass of the claim made for this job.")
    ] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(
            min_length=1,
            max_length=3,
            description="Access modes of the claim made for this job; "
            "default: ReadWriteOnce for one node, ReadWriteMany for several.",
        ),
    ] = None
    claim_name: Annotated[
        ObjectName | None, Field(description="A PersistentVolumeClaim that exists; shares prepared data among jobs.")
    ] = None


class Output(Model):
    """The claim that the tuned model is written to. It goes with the job and the last deployment that serves it."""

    size: Annotated[Quantity | None, Field(description="Size of the claim; default: 20Gi.")] = None
    storage_class_name: Annotated[ObjectName | None, Field(description="StorageClass of the claim.")] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(min_length=1, max_length=3, description="Access modes of the claim; default: ReadWriteOnce."),
    ] = None
    retain: Annotated[bool, Field(description="Keep the claim when the job and its deployments are deleted.")] = False


class FineTuneJobSpec(Model):
    """What to tune, on what, how and where."""

    model: Annotated[ModelSource, Field(description="The base model.")]
    dataset: Annotated[Dataset, Field(description="The data.")]
    objective: Annotated[Objective, Field(description="What is trained for.")] = Objective.SFT
    method: Annotated[Method | None, Field(description="Which weights are trained; default: LoRA of rank 32.")] = None
    hyperparameters: Annotated[Hyperparameters | None, Field(description="Training settings; all optional.")] = None
    compute: Annotated[Compute | None, Field(description="Pods, GPUs and their settings; default: one GPU.")] = None
    prepare: Annotated[Prepare | None, Field(description="The pod that checks data and plan.")] = None
    suspend: Annotated[
        bool, Field(description="Stop after saving a checkpoint and hold no pods until set to false.")
    ] = False
    start_deadline_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=604_800,
            description="Seconds that the pods of a step may take until all run; then they are made again.",
        ),
    ] = 1800
    active_deadline_seconds: Annotated[
        int | None, Field(ge=1, le=31_536_000, description="Seconds that one attempt may run.")
    ] = None
    checkpoint: Annotated[Checkpoint | None, Field(description="How often training saves itself.")] = None
    retry: Annotated[Retry | None, Field(description="How often training is tried again.")] = None
    evaluation: Annotated[Evaluation | None, Field(description="How the result is scored.")] = None
    workspace: Annotated[Workspace | None, Field(description="Scratch space.")] = None
    output: Annotated[Output | None, Field(description="Where the tuned model goes.")] = None


class ProgressStatus(Model):
    """Where training stands."""

    step: Annotated[int, Field(ge=0, description="Optimizer steps done.")] = 0
    total_steps: Annotated[int, Field(ge=0, description="Optimizer steps of the run.")] = 0
    percent: Annotated[int, Field(ge=0, le=100, description="Share of the steps done.")] = 0
    epoch: Annotated[float | None, Field(description="Passes over the training rows done.")] = None
    loss: Annotated[str | None, Field(max_length=32, description="Recent training loss, as text for the column.")] = (
        None
    )
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


class FineTuneJob(Model):
    """Tunes a base model on a dataset, scores it against its base, and keeps the result on a claim."""

    spec: Annotated[FineTuneJobSpec, Field(description="What to tune, on what, how and where.")]
    status: Annotated[FineTuneJobStatus | None, Field(description="What was observed; written by the operator.")] = None


MUTABLE_AFTER_START = ("suspend",)
"""Fields of the spec that may still change once `status.startTime` is set."""
FROZEN_MESSAGE = "a started run cannot change: use a new metadata.name"

_OBJECTIVE = f"(has(self.objective) ? self.objective : '{Objective.SFT.value}')"


def _reads(objective: Objective) -> dict[str, str]:
    """The rule that a named format is one that the objective learns from."""
    formats = [format.value for format in OBJECTIVES[objective].formats]
    return {
        "rule": f"{_OBJECTIVE} != '{objective.value}' || !has(self.dataset.format) || "
        f"self.dataset.format in {[DataFormat.AUTO.value, *formats]}",
        "message": f"objective {objective.value} reads rows of format {' or '.join(formats)}",
    }


def _only_with(path: str, fits: Callable[[ObjectiveFacts], bool]) -> dict[str, str]:
    """The rule that a field is there only with objectives that it means something to."""
    fitting = [objective.value for objective, facts in OBJECTIVES.items() if fits(facts)]
    return {
        "rule": f"!has(self.{path.split('.')[0]}) || !has(self.{path}) || {_OBJECTIVE} in {fitting}",
        "message": f"{path} has meaning only with objective {' or '.join(fitting)}: remove it",
    }


RULES: dict[type[Model], list[dict[str, str]]] = {
    **meta.RULES,
    FineTuneJobSpec: [
        *(_reads(objective) for objective in OBJECTIVES),
        _only_with("dataset.trainOn", lambda facts: facts.marks_tokens),
        _only_with("dataset.balance", lambda facts: facts.balances),
        _only_with("hyperparameters.beta", lambda facts: facts.beta is not None),
    ],
    DataSource: [
        {"rule": "has(self.claim) != has(self.configMap)", "message": "give exactly one of claim and configMap"}
    ],
    HeldOut: [
        {
            "rule": "(has(self.claim) ? 1 : 0) + (has(self.configMap) ? 1 : 0) + (has(self.fraction) ? 1 : 0) == 1",
            "message": "give exactly one of claim, configMap and fraction",
        }
    ],
    Method: [
        {
            "rule": "!has(self.lora) || !has(self.type) || self.type == 'LoRA'",
            "message": "lora has meaning only with type LoRA: remove it",
        },
        {
            "rule": "!has(self.freeze) || (has(self.type) && self.type == 'Full')",
            "message": "freeze has meaning only with type Full: LoRA trains no weight of the base model",
        },
    ],
    Hyperparameters: [
        {"rule": "!(has(self.epochs) && has(self.maxSteps))", "message": "give epochs or maxSteps, not both"}
    ],
    Checkpoint: [
        {
            "rule": "!(has(self.everySteps) && has(self.everyMinutes))",
            "message": "give everySteps or everyMinutes, not both",
        }
    ],
    Compute: [
        {
            "rule": "!has(self.processesPerNode) || (has(self.gpusPerNode) ? (self.gpusPerNode == 0 || "
            "self.processesPerNode == self.gpusPerNode) : self.processesPerNode == 1)",
            "message": "processesPerNode must equal gpusPerNode: leave it out, "
            "or set gpusPerNode to 0 to train on the CPU",
        }
    ],
    Workspace: [
        {
            "rule": "!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.accessModes))",
            "message": "claimName names a claim that exists: leave out size, storageClassName and accessModes",
        }
    ],
}
"""CEL rules by type. Those of the root, which freeze a started run, are generated in `crds.py`."""
