"""FineTuneJob: fine-tunes a base model on data with an objective and a method; the result is a model with scores."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.meta import (
    AccessMode,
    EnvVar,
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
    SplitBy,
    TrainOn,
)

KIND = "FineTuneJob"
PLURAL = "finetunejobs"

ColumnName = Annotated[str, Field(min_length=1, max_length=128)]

_ROWS_ON_A_CLAIM = (
    "Rows on a PersistentVolumeClaim: a file (JSON Lines, JSON array, CSV, TSV or Parquet; text files may be "
    "compressed as .gz or .zst), a directory of such files, a glob such as data/*.jsonl, or a directory written by "
    "Dataset.save_to_disk."
)
_ROWS_IN_A_CONFIG_MAP = (
    "Rows in a ConfigMap: one key with a file of any of the types that claim supports, at most 1 MiB."
)


class ClaimPath(Model):
    """A file or directory on a PersistentVolumeClaim in the same namespace, mounted read-only."""

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
    """One key of a ConfigMap in the same namespace; at most 1 MiB."""

    name: Annotated[ObjectName, Field(description="Name of the ConfigMap.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the ConfigMap.")
    ]


class ModelSource(Model):
    """A model: a directory in the format of transformers (config, weights, tokenizer), or another job's result."""

    claim: Annotated[
        ClaimPath | None,
        Field(
            description="Directory on a PersistentVolumeClaim with config, weights and tokenizer, as "
            "save_pretrained writes them. Exactly one of claim and jobRef must be set."
        ),
    ] = None
    job_ref: Annotated[
        LocalReference | None,
        Field(
            description="FineTuneJob in the same namespace whose result is used. If that is an adapter, it is merged "
            "with its base model first. This job waits until the other one is Complete. Deleting or replacing the "
            "other job later has no effect on this one."
        ),
    ] = None


class RewardFunction(Model):
    """One reward function: exactly one of name, for a built-in one, and configMap, for your own."""

    name: Annotated[
        RewardName | None,
        Field(
            description="Built-in function. "
            + ". ".join(f"{name.value}: {facts.gives}" for name, facts in REWARDS.items())
            + "."
        ),
    ] = None
    pattern: Annotated[
        Pattern | None,
        Field(
            description="Regular expression to search for in an answer. Required with name Regex, not allowed without "
            "it."
        ),
    ] = None
    config_map: Annotated[
        ConfigMapKey | None,
        Field(
            description="Python file that defines your function at its top level: def reward(prompts, completions, "
            "reference=None, **kwargs) -> list[float | None]. It returns a number for each completion, or None if it "
            "does not apply. Prompts and completions are strings or lists of messages, as in the data. reference has a "
            "string, a list of strings or None for each completion. The file is read by the prepare pod and run only "
            "in the train and finish pods."
        ),
    ] = None
    function: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Name of the function in the file. Allowed only with configMap. Default: reward.",
        ),
    ] = None
    weight: Annotated[
        Weight,
        Field(description="Factor by which the function's value is multiplied. A negative weight makes it a penalty."),
    ] = 1.0


class Reward(Model):
    """The reward of an answer: the score of the reward model plus the weighted sum of the functions."""

    model: Annotated[
        ModelSource | None,
        Field(
            description="Reward model: a model with one output, such as the result of a job with objective Reward. It "
            "uses its own tokenizer and chat template, and is not trained. At least one of model and functions must be "
            "set."
        ),
    ] = None
    functions: Annotated[
        list[RewardFunction] | None,
        Field(min_length=1, max_length=6, description="Reward functions, whose values are weighted and added up."),
    ] = None


class DataSource(Model):
    """Where rows are read from: exactly one of claim and configMap."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None


class HeldOut(Model):
    """Rows that are not trained on: exactly one of claim, configMap and fraction."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None
    fraction: Annotated[
        float | None,
        Field(ge=0, le=0.5, description="Fraction of the training rows to hold out, selected by a hash of the prompt."),
    ] = None


class Dataset(Model):
    """The rows to learn from, and how to read them."""

    train: Annotated[DataSource, Field(description="Training rows.")]
    validation: Annotated[
        HeldOut | None,
        Field(
            description="Validation rows, on which the loss is evaluated during training. {on_policy_listed} do not "
            "use them: set fraction to 0 to train on these rows as well. Default: 10 % of the training rows."
        ),
    ] = None
    test: Annotated[
        HeldOut | None,
        Field(
            description="Test rows, on which base model and tuned model are scored at the end. A fraction must be "
            "above 0. Default: 10 % of the training rows."
        ),
    ] = None
    format: Annotated[
        DataFormat,
        Field(
            description="Format of the rows. Auto detects it by the columns: Messages for 'messages', PromptCompletion "
            "for 'prompt' and 'completion', TextLabel for 'text' and 'label' ({TextLabel}), Preference for 'chosen' "
            "and 'rejected', with the prompt in 'prompt' or as their common beginning ({Preference}), "
            "UnpairedPreference for 'prompt', 'completion' and a boolean 'label' ({UnpairedPreference}), ShareGPT for "
            "'conversations', Alpaca for 'instruction' and 'output', Prompt for 'prompt' with or without 'reference' "
            "({Prompt})."
        ),
    ] = DataFormat.AUTO
    columns: Annotated[
        dict[ColumnName, ColumnName] | None,
        Field(
            max_length=16,
            description="Column names in the data that differ from Hone's, by Hone's name. For example, prompt: "
            "question reads the prompt from the column question.",
        ),
    ] = None
    train_on: Annotated[
        TrainOn | None,
        Field(
            description="{marks_tokens}: tokens on which the loss is computed. Assistant: the assistant's messages of "
            "a conversation. Completion: the completion, or the last answer of a conversation. All: all tokens. "
            "Default: Assistant for Messages, ShareGPT and Alpaca, Completion for PromptCompletion."
        ),
    ] = None
    balance: Annotated[
        Balance | None,
        Field(
            description="{balances}: Weight gives the rows of rare classes more weight in the loss; None gives all "
            "rows the same weight. Classification: the weight is n / (k * n_c) with n rows, k classes and n_c rows of "
            "the class. KTO: the good rows together get 1 to 4/3 times the weight of the bad rows. Default: Weight for "
            "Classification if the largest class has more than 3 times the rows of the smallest one, and for KTO if "
            "the number of good rows is not 1 to 4/3 times that of bad rows; None in all other cases."
        ),
    ] = None
    show_example: Annotated[
        bool,
        Field(
            description="Whether status.dataset.example shows a training row. Everyone who may read the job can read "
            "it there. status.dataset.exampleOutline shows the parts and lengths of the row in any case, and the "
            "report next to the artifact contains it."
        ),
    ] = False
    split_by: Annotated[
        SplitBy | None,
        Field(
            description="What decides which training rows are held out; rows that agree in it are in the same split. "
            "Prompt: everything before the answer. FirstTurn: a conversation up to the user's first message. Row: the "
            "whole row. Column: the column group (see columns), such as a user or a document. Default: Prompt, or Row "
            "if most rows have the same prompt."
        ),
    ] = None
    max_bad_rows: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest fraction of rows that may be left out because they cannot be used. With more, the job "
            "fails before training.",
        ),
    ] = 0.1
    min_samples: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="Number of training rows below which onScarceData applies.")
    ] = 500
    on_scarce_data: Annotated[
        OnScarceData,
        Field(
            description="What to do with fewer training rows than minSamples: Warn continues with a warning in "
            "status.plan, Fail ends the job before training."
        ),
    ] = OnScarceData.WARN


class StepName(StrEnum):
    """A step of a job, whose pods a variable is meant for."""

    PREPARE = "Prepare"
    TRAIN = "Train"
    FINISH = "Finish"


class StepEnvVar(EnvVar):
    """An environment variable of the pods of some or all steps."""

    steps: Annotated[
        list[StepName] | None,
        Field(
            min_length=1,
            max_length=3,
            description="Steps whose pods get the variable. Default: all for a plain value. A value from a Secret "
            "reaches only pods that run your code: those of Train, and of Finish if reward.functions has a configMap.",
        ),
    ] = None


StepEnvVars = Annotated[list[StepEnvVar], Field(max_length=64, description="Environment variables to add.")]


class JobPodSettings(PodSettings):
    """Further settings of the pods of a job, merged into their specs. Labels set by Hone take precedence."""

    env: StepEnvVars | None = None  # type: ignore[assignment]


class Compute(Model):
    """The trainer pods and their resources."""

    nodes: Annotated[int, Field(ge=1, le=1024, description="Number of trainer pods.")] = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64, description="Number of GPUs per pod. 0 trains on the CPU.")] = 1
    processes_per_node: Annotated[
        int | None,
        Field(
            ge=1,
            le=64,
            description="Number of training processes per pod. On GPUs it must equal gpusPerNode. Default: one per "
            "GPU, or one on the CPU.",
        ),
    ] = None
    gpu_resource: Annotated[
        str, Field(min_length=1, max_length=253, description="Name of the GPU resource in Kubernetes.")
    ] = "nvidia.com/gpu"
    gpu_memory: Annotated[
        Quantity | None,
        Field(
            description="Memory of one GPU, such as 80Gi. With it, the plan checks whether training fits in memory "
            "before the trainer pods are created. Without it, method Full on several GPUs starts with ZeRO-2."
        ),
    ] = None
    zero_stage: Annotated[
        int | None,
        Field(
            json_schema_extra={"enum": [0, 2, 3]},
            ge=0,
            le=3,
            description="ZeRO stage of DeepSpeed. 0 is plain DDP, 2 shards gradients and optimizer state, 3 shards the "
            "weights as well. Default: the lowest stage that fits in memory.",
        ),
    ] = None
    micro_batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=65_536,
            description="Rows per process and forward pass. Must divide the share of globalBatchSize of one process. "
            "{least_rows}. Default: chosen by the plan.",
        ),
    ] = None
    image: Annotated[
        str | None,
        Field(min_length=1, max_length=1024, description="Trainer image. Default: the one configured in the operator."),
    ] = None
    resources: Annotated[
        ResourceRequirements | None,
        Field(
            description="CPU and memory per trainer pod. GPUs are set by gpusPerNode. Default: 4 CPUs and 16Gi per "
            "GPU, at most 128Gi; on the CPU 1 CPU and 2Gi per process, at most 8Gi."
        ),
    ] = None
    pod: Annotated[JobPodSettings | None, Field(description="Settings of all pods of the job.")] = None


class Prepare(Model):
    """The CPU pod that checks the data and plans the training before GPUs are requested."""

    resources: Annotated[
        ResourceRequirements | None,
        Field(
            description="CPU and memory of the prepare pod. Default: 500m and 2Gi, at most 8Gi, or 128Gi if it merges "
            "the adapter of another job."
        ),
    ] = None


class Retry(Model):
    """How often a failed step is retried."""

    limit: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Maximum number of retries of a step. Counts only failures of certain classes (see the failure "
            "classes in the documentation).",
        ),
    ] = 3


class Workspace(Model):
    """Scratch space for prepared data and checkpoints: a claim created for the job, or the one named in claimName."""

    size: Annotated[Quantity | None, Field(description="Size of the claim created for this job. Default: 50Gi.")] = None
    storage_class_name: Annotated[
        ObjectName | None,
        Field(description="StorageClass of the claim created for this job. Default: the cluster's default."),
    ] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(
            min_length=1,
            max_length=3,
            description="Access modes of the claim created for this job. Default: ReadWriteOnce for one trainer pod, "
            "ReadWriteMany for several.",
        ),
    ] = None
    claim_name: Annotated[
        ObjectName | None,
        Field(
            description="Existing PersistentVolumeClaim to use, which lets several jobs share prepared data. Create "
            "it yourself: a claim that Hone created for another job is refused. Cannot be set together with size, "
            "storageClassName or accessModes."
        ),
    ] = None


class MergePolicy(StrEnum):
    """Whether an adapter is merged with its base."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Output(Model):
    """The claim that the tuned model is written to. It is deleted with the job and the deployments that serve it."""

    size: Annotated[Quantity | None, Field(description="Size of the claim. Default: 20Gi.")] = None
    storage_class_name: Annotated[
        ObjectName | None, Field(description="StorageClass of the claim. Default: the cluster's default.")
    ] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(min_length=1, max_length=3, description="Access modes of the claim. Default: ReadWriteOnce."),
    ] = None
    retain: Annotated[
        bool, Field(description="Whether to retain the claim when the job and its deployments are deleted.")
    ] = False
    merge: Annotated[
        MergePolicy,
        Field(
            description="Whether to merge an adapter with its base model into a whole model. Auto merges if the base "
            "model comes from another job, since deleting that job may delete it. Adapters of {has_head} are always "
            "merged."
        ),
    ] = MergePolicy.AUTO


class FineTuneJobSpec(Model):
    """Desired state of the FineTuneJob."""

    model: Annotated[ModelSource, Field(description="Base model to tune.")]
    teacher: Annotated[
        ModelSource | None,
        Field(
            description="{taught}: model to learn from, with the same vocabulary as the base model. Required for "
            "{taught}, not allowed for other objectives."
        ),
    ] = None
    dataset: Annotated[Dataset, Field(description="Rows to learn from, and how to read them.")]
    objective: Annotated[
        Objective, Field(description="Training objective. It determines the loss and the format of the data.")
    ] = Objective.SFT
    reward: Annotated[
        Reward | None,
        Field(
            description="{rewarded}: how the answers that the model generates are rewarded. Required for "
            "{rewarded_listed}, not allowed for other objectives."
        ),
    ] = None
    method: Annotated[Method | None, Field(description="Weights to train. Default: LoRA of rank 32.")] = None
    hyperparameters: Annotated[
        Hyperparameters | None,
        Field(description="Training settings. All are optional; status.plan shows the values in use."),
    ] = None
    compute: Annotated[
        Compute | None, Field(description="Trainer pods and their GPUs. Default: one pod with one GPU.")
    ] = None
    prepare: Annotated[Prepare | None, Field(description="Pod that checks the data and plans the training.")] = None
    suspend: Annotated[
        bool,
        Field(
            description="Whether to stop the job: training saves a checkpoint, then all pods are deleted. Set it to "
            "false to resume."
        ),
    ] = False
    start_deadline_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=604_800,
            description="Seconds within which all pods of a step must start. After that they are deleted and created "
            "again.",
        ),
    ] = 1800
    active_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1, le=31_536_000, description="Maximum duration of one training attempt in seconds. Default: no limit."
        ),
    ] = None
    checkpoint: Annotated[Checkpoint | None, Field(description="How often training saves a checkpoint.")] = None
    retry: Annotated[Retry | None, Field(description="How often a failed step is retried.")] = None
    evaluation: Annotated[Evaluation | None, Field(description="How base model and tuned model are scored.")] = None
    workspace: Annotated[Workspace | None, Field(description="Scratch space for prepared data and checkpoints.")] = None
    output: Annotated[Output | None, Field(description="Claim that the tuned model is written to.")] = None


class FineTuneJob(Model):
    """Fine-tunes a base model on a dataset, scores it and the base model, and stores the tuned model on a claim."""

    spec: Annotated[FineTuneJobSpec, Field(description="Desired state of the FineTuneJob.")]
    status: Annotated[FineTuneJobStatus | None, Field(description="Observed state. Written by the operator.")] = None


MUTABLE_AFTER_START = ("suspend",)
"""Fields of the spec that may still change once `status.startTime` is set."""
FROZEN_MESSAGE = "cannot change after training has started. Create a job with another metadata.name"
