"""FineTuneJob: fine-tunes a base model on data with an objective and a method; the result is a model with scores."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.api.budget import Budget
from hone.api.dataset import REVISION, Dataset, ImagePath
from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.gate import Gate
from hone.api.generation import Generation
from hone.api.meta import (
    AccessMode,
    EnvVar,
    PodSettings,
    Quantity,
    ResourceRequirements,
)
from hone.api.output import PUBLISH_FIELDS, Output
from hone.api.queue import QUEUE, Queue
from hone.contract.base import Model
from hone.contract.objectives import Objective
from hone.contract.objects import ClaimPath, ConfigMapKey, LocalReference, ObjectName
from hone.contract.rewards import REWARDS, Pattern, RewardName, Weight
from hone.contract.search import Search
from hone.contract.settings import (
    Checkpoint,
    Evaluation,
    Hyperparameters,
    Method,
    Precision,
)
from hone.contract.stores import S3Store

KIND = "FineTuneJob"
PLURAL = "finetunejobs"
MODEL_URI = (
    r"^(hf://[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?"
    r"|s3://[a-z0-9][-a-z0-9.]*(/[^\x00-\x1f\x7f\\*?\[]*)?)$"
)
"""Where models may come from."""


class ModelSource(Model):
    """A model in the format of transformers: on a claim, another job's result, downloaded, or in an image."""

    claim: Annotated[
        ClaimPath | None,
        Field(
            description="Directory on a PersistentVolumeClaim with config, weights and tokenizer, as "
            "save_pretrained writes them. Exactly one of claim, jobRef, uri and image must be set."
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
    uri: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            pattern=MODEL_URI,
            description="Model that the prepare pod downloads to the workspace, once for all jobs that share it. "
            "hf://organization/name: on the Hugging Face Hub. s3://bucket/prefix: the objects directly below a prefix, "
            "as save_pretrained writes them. It must have weights in safetensors files.",
        ),
    ] = None
    image: Annotated[
        ImagePath | None,
        Field(
            description="Model in an OCI image that the kubelet mounts, such as one that output.uri published as "
            "oci://."
        ),
    ] = None
    revision: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=REVISION,
            description="Branch, tag or commit of the model at uri. Default: its default branch. The job uses the "
            "commit that this names when it is prepared; status.downloads has that commit. Allowed only with hf://.",
        ),
    ] = None
    s3: Annotated[S3Store | None, Field(description="The store. Allowed only with s3://. Default: Amazon S3.")] = None
    credentials_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description="Secret with credentials, for what is not public. hf://: key HF_TOKEN has an access token. "
            "s3://: keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN. Only the "
            "prepare pod gets them. Allowed only with uri."
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


class StepName(StrEnum):
    """A step of a job, whose pods a variable is meant for."""

    PREPARE = "Prepare"
    TRAIN = "Train"
    FINISH = "Finish"
    PUBLISH = "Publish"


class StepEnvVar(EnvVar):
    """An environment variable of the pods of some or all steps."""

    steps: Annotated[
        list[StepName] | None,
        Field(
            min_length=1,
            max_length=4,
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
            description="Memory of one GPU, such as 80Gi, with which the plan checks whether training fits in memory "
            "before the trainer pods are created. Default: what the labels of GPU feature discovery show of the nodes "
            "that the pods may run on. If they show nothing, the plan is made for GPUs of 80Gi, and method Full on "
            "several GPUs starts with ZeRO-2."
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
    offload_optimizer: Annotated[
        bool | None,
        Field(
            description="Whether ZeRO keeps optimizer state and gradients in host memory (DeepSpeed's "
            "offload_optimizer), where AdamW then runs on the CPU: slow, and 18 to 20 bytes of host memory for each "
            "trained parameter, which the trainer pods request. Needs GPUs, and zeroStage 2 or 3. Default: true only "
            "if {weight_methods} fits in memory no other way."
        ),
    ] = None
    offload_param: Annotated[
        bool | None,
        Field(
            description="Whether ZeRO-3 keeps the weights in host memory until they are used (DeepSpeed's "
            "offload_param): very slow, and 2 bytes of host memory for each parameter. Needs GPUs, and zeroStage 3. "
            "Default: true only if {weight_methods} fits in memory no other way."
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
    precision: Annotated[
        Precision | None,
        Field(
            description="Data type of 16 bits in which GPUs compute, and which adapters' base weights have: bfloat16 "
            "or float16. Needs GPUs. Default: bfloat16, or float16 if labels of nodes show GPUs of a compute "
            "capability below 8.0, which have no bfloat16."
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
    size_limit: Annotated[
        Quantity | None,
        Field(
            description="Maximum size of what is kept on the claim for other jobs: downloads, merged models and "
            "prepared data. When a job prepares, what was used least recently is removed, but nothing that a job reads "
            "which has not ended. Needs claimName. Default: something is removed only when the claim is full."
        ),
    ] = None


class Cache(Model):
    """A claim on which jobs share what they download."""

    claim_name: Annotated[
        ObjectName,
        Field(
            description="Existing PersistentVolumeClaim, which several pods at a time must be able to mount "
            "(ReadWriteMany, or pods on one node). Create it yourself: a claim that Hone created for another job is "
            "refused. Only the prepare pod writes to it."
        ),
    ]
    size_limit: Annotated[
        Quantity | None,
        Field(
            description="Maximum size of what is kept on it for other jobs, as workspace.sizeLimit. Default: something "
            "is removed only when the claim is full."
        ),
    ] = None


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
    generation: Annotated[
        Generation | None,
        Field(
            description="{on_policy}: how the answers that the model learns from are generated in training. Not "
            "allowed for other objectives. Default: by the training processes."
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
    queue: Annotated[Queue | None, Field(description=QUEUE)] = None
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
    progress_deadline_seconds: Annotated[
        int,
        Field(
            ge=10,
            le=604_800,
            description="Seconds without progress after which training counts as hung. Progress is a micro-batch, a "
            "batch of generated answers or of an evaluation; while a rank loads or saves, any work of its processes. "
            "The limit is higher where progress usually takes longer than a tenth of it, in the first optimizer step, "
            "and for saves.",
        ),
    ] = 300
    active_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1, le=31_536_000, description="Maximum duration of one training attempt in seconds. Default: no limit."
        ),
    ] = None
    budget: Annotated[
        Budget | None,
        Field(
            description="What the GPUs may be used for at most, over all attempts. Training does not begin if it would "
            "need more, and saves a checkpoint and stops when it is used up. Raise it to continue: it may be edited at "
            "any time, and the next attempt has the new limit. Preparing, exporting and scoring are not stopped."
        ),
    ] = None
    checkpoint: Annotated[Checkpoint | None, Field(description="How often training saves a checkpoint.")] = None
    retry: Annotated[Retry | None, Field(description="How often a failed step is retried.")] = None
    evaluation: Annotated[
        Evaluation | None,
        Field(
            description="How base model and tuned model are scored. It may be edited at any time: what has been scored "
            "already is scored again. What is evaluated during training stays as it was at its start."
        ),
    ] = None
    gate: Annotated[
        Gate | None,
        Field(
            description="What the scores must show before the tuned model may be served. It may be edited at any time: "
            "what has been scored is then decided again, without a run. Default: no gate, every model may be served."
        ),
    ] = None
    search: Annotated[
        Search | None,
        Field(
            description="Short trials of other settings before the training, on the same GPUs, model and prepared "
            "data, compared by the loss on the validation rows. The best settings are then trained in full if they are "
            "clearly better than those of the plan. An empty object searches what matters most. Default: no search."
        ),
    ] = None
    workspace: Annotated[Workspace | None, Field(description="Scratch space for prepared data and checkpoints.")] = None
    cache: Annotated[
        Cache | None,
        Field(
            description="Claim for models and data that are downloaded by their uri, for jobs that do not share a "
            "workspace. Default: the administrator's, if the namespace has a claim of that name; else the workspace."
        ),
    ] = None
    output: Annotated[
        Output | None, Field(description="Claim that the tuned model is written to, and where it is published.")
    ] = None


class FineTuneJob(Model):
    """Fine-tunes a base model on a dataset, scores it and the base model, and stores the tuned model on a claim."""

    spec: Annotated[FineTuneJobSpec, Field(description="Desired state of the FineTuneJob.")]
    status: Annotated[FineTuneJobStatus | None, Field(description="Observed state. Written by the operator.")] = None


PREPARED_EVALUATION = ("group_by",)
"""Fields of `evaluation` that prepare reads."""
_SCORING = [field.alias or name for name, field in Evaluation.model_fields.items() if name not in PREPARED_EVALUATION]
NOT_DIGESTED = ("suspend", "queue", "gate", "budget")
"""Fields of the spec on which nothing that was prepared depends."""
MUTABLE_AFTER_START = (
    *NOT_DIGESTED,
    *(f"evaluation.{name}" for name in _SCORING),
    *(f"output.{name}" for name in PUBLISH_FIELDS),
)
"""Fields of the spec that may still change once `status.startTime` is set, and after the end."""
FROZEN_MESSAGE = "cannot change after training has started. Create a job with another metadata.name"
