"""FineTuneJob: a base model, data, an objective and a method in; a tuned model with its scores out."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.meta import (
    AccessMode,
    LocalReference,
    ObjectName,
    PodSettings,
    Quantity,
    ResourceRequirements,
)
from hone.contract.base import Model
from hone.contract.objectives import Objective
from hone.contract.rewards import REWARDS, Pattern, RewardName, Weight
from hone.contract.settings import (
    Balance,
    Checkpoint,
    DataFormat,
    Evaluation,
    Hyperparameters,
    Method,
    OnScarceData,
    TrainOn,
)

KIND = "FineTuneJob"
PLURAL = "finetunejobs"

ColumnName = Annotated[str, Field(min_length=1, max_length=128)]

_ROWS_ON_A_CLAIM = (
    "Rows on a PersistentVolumeClaim: a file (JSON Lines, JSON array, CSV, TSV, Parquet; text also as .gz or .zst), a "
    "directory of such files, a glob such as data/*.jsonl, or a folder that Dataset.save_to_disk wrote."
)
_ROWS_IN_A_CONFIG_MAP = "A file of any of these kinds in a ConfigMap, at most 1 MiB."


class ClaimPath(Model):
    """A file or directory on a PersistentVolumeClaim of the namespace, mounted read-only."""

    name: Annotated[ObjectName, Field(description="Name of the PersistentVolumeClaim.")]
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^[^/].*$",
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
    """A model: a directory with config, weights and tokenizer as transformers saves them, or another job's result."""

    claim: Annotated[ClaimPath | None, Field(description="A directory on a PersistentVolumeClaim.")] = None
    job_ref: Annotated[
        LocalReference | None,
        Field(
            description="FineTuneJob of the namespace whose result this is; an adapter is merged with its base first. "
            "The job waits until that one is Complete; what it then finds it keeps, whatever becomes of that job."
        ),
    ] = None


class RewardFunction(Model):
    """What an answer is worth by one measure: a function of Hone's, or one of your own from a ConfigMap."""

    name: Annotated[
        RewardName | None,
        Field(description=". ".join(f"{name.value}: {facts.gives}" for name, facts in REWARDS.items()) + "."),
    ] = None
    pattern: Annotated[Pattern | None, Field(description="Regex: what an answer is searched for.")] = None
    config_map: Annotated[
        ConfigMapKey | None,
        Field(
            description="A Python file with your own function at its top level: def reward(prompts, completions, "
            "reference=None, **kwargs) -> list[float], a figure for each completion, or None where it does not apply. "
            "Prompts and completions are strings or lists of messages, as in the data; reference is a string, a list "
            "of strings or None for each. It is read while preparing, and run only in the pods that train and finish."
        ),
    ] = None
    function: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Name of the function in the file; default: reward.",
        ),
    ] = None
    weight: Annotated[Weight, Field(description="What its figure is multiplied with; below 0 it is a penalty.")] = 1.0


class Reward(Model):
    """What answers are rewarded for: the reward model's score, plus each function times its weight."""

    model: Annotated[
        ModelSource | None,
        Field(
            description="A model that scores answers by one output, as objective Reward makes one, with its own "
            "tokenizer and chat template. It is not trained."
        ),
    ] = None
    functions: Annotated[
        list[RewardFunction] | None, Field(min_length=1, max_length=6, description="Measures of an answer.")
    ] = None


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
        Field(ge=0, le=0.5, description="Share of the training rows, chosen by a hash of the prompt."),
    ] = None


class Dataset(Model):
    """The rows to learn from, and how to read them."""

    train: Annotated[DataSource, Field(description="Rows to train on.")]
    validation: Annotated[
        HeldOut | None,
        Field(
            description="Rows that tell the loss while training; default: a tenth of the training rows. "
            "{on_policy_listed} leave them unused: a fraction of 0 gives these all rows but the test's."
        ),
    ] = None
    test: Annotated[
        HeldOut | None, Field(description="Rows that only score the result; default: a tenth of the training rows.")
    ] = None
    format: Annotated[
        DataFormat,
        Field(
            description="How a row is written. Auto: Messages for a 'messages' column, PromptCompletion for "
            "'prompt' and 'completion', TextLabel for 'text' and 'label' ({TextLabel}), Preference for "
            "'chosen' and 'rejected', whose prompt is 'prompt', or what both begin with ({Preference}), "
            "UnpairedPreference for 'prompt', 'completion' and a boolean 'label' ({UnpairedPreference}), ShareGPT for "
            "'conversations', Alpaca for 'instruction' and 'output', Prompt for 'prompt' with 'reference' or without "
            "({Prompt})."
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
        Field(
            description="{marks_tokens}: tokens that carry loss; default: Assistant for conversations, else Completion."
        ),
    ] = None
    balance: Annotated[
        Balance | None,
        Field(
            description="{balances}: Weight gives the rows of scarce classes more weight in the loss. "
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
        Field(
            description="Memory of one GPU, such as 80Gi, by which the plan says before queueing whether it fits. "
            "Without it, Full on several GPUs begins with ZeRO-2, whether it needs that or more."
        ),
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
        Field(
            ge=1,
            le=65_536,
            description="Rows per process and forward pass, a divisor of its share of globalBatchSize; {least_rows}. "
            "Default: chosen by the plan.",
        ),
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


class MergePolicy(StrEnum):
    """Whether an adapter is merged with its base."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Output(Model):
    """The claim that the tuned model is written to. It goes with the job and the last deployment that serves it."""

    size: Annotated[Quantity | None, Field(description="Size of the claim; default: 20Gi.")] = None
    storage_class_name: Annotated[ObjectName | None, Field(description="StorageClass of the claim.")] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(min_length=1, max_length=3, description="Access modes of the claim; default: ReadWriteOnce."),
    ] = None
    retain: Annotated[bool, Field(description="Keep the claim when the job and its deployments are deleted.")] = False
    merge: Annotated[
        MergePolicy,
        Field(
            description="Whether an adapter is merged with its base into a whole model. Auto: where another job made "
            "the base, which may go with that job. One with a head of its own always is."
        ),
    ] = MergePolicy.AUTO


class FineTuneJobSpec(Model):
    """What to tune, on what, how and where."""

    model: Annotated[ModelSource, Field(description="The base model.")]
    teacher: Annotated[
        ModelSource | None,
        Field(description="{taught}: the model to learn from, with the same vocabulary as the base."),
    ] = None
    dataset: Annotated[Dataset, Field(description="The data.")]
    objective: Annotated[Objective, Field(description="What is trained for.")] = Objective.SFT
    reward: Annotated[
        Reward | None, Field(description="{rewarded}: what the model's own answers are rewarded for.")
    ] = None
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


class FineTuneJob(Model):
    """Tunes a base model on a dataset, scores it against its base, and keeps the result on a claim."""

    spec: Annotated[FineTuneJobSpec, Field(description="What to tune, on what, how and where.")]
    status: Annotated[FineTuneJobStatus | None, Field(description="What was observed; written by the operator.")] = None


MUTABLE_AFTER_START = ("suspend",)
"""Fields of the spec that may still change once `status.startTime` is set."""
FROZEN_MESSAGE = "a started run cannot change: use a new metadata.name"
