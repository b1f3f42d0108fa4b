"""RunConfig: the configuration of a run's pods, in one immutable ConfigMap mounted at `/etc/hone/run.json`."""

from typing import Annotated

from pydantic import Field

from hone.contract import VERSION
from hone.contract.base import Model
from hone.contract.objectives import Objective
from hone.contract.record import RunRecord
from hone.contract.rewards import Rewards
from hone.contract.search import Search
from hone.contract.settings import (
    Balance,
    ChatTemplateName,
    Checkpoint,
    DataFormat,
    Evaluation,
    GenerationEngine,
    Hyperparameters,
    Method,
    OnScarceData,
    Precision,
    Reasoning,
    Role,
    SplitBy,
    TrainOn,
)
from hone.contract.stores import S3Store

RUN_CONFIG_PATH = "/etc/hone/run.json"
MOUNTS = "/mnt"
"""All volumes of a run are mounted below it. Of models and adapters, `<MOUNTS>/<name>` is the root of the volume."""
CACHE = f"{MOUNTS}/cache"
"""Where the claim is mounted that jobs share for downloads alone, if a run has one."""
ATTEMPT_ENV = "HONE_ATTEMPT"
"""Environment variable that holds an `Attempt` as JSON in trainer pods."""
NODE_RANK_ENV = "JOB_COMPLETION_INDEX"
"""Environment variable that Kubernetes sets in an Indexed Job's pods: the pod's index, used as torchrun's node rank."""
MASTER_ENV = "HONE_MASTER"
"""Environment variable with the DNS name of pod 0, where the ranks meet; unset with one node."""
POD_UID_ENV = "HONE_POD_UID"
"""Environment variable with the pod's own uid, which `/progress` returns."""
METRICS_PORT = 9400
"""Port of `/metrics`, `/progress` and `/healthz` in trainer pods, and of `/progress` in prepare pods."""
MASTER_PORT = 29400
"""Port of torchrun's rendezvous on pod 0."""

HOST_MEMORY_PER_GPU = 128 * 2**30
"""Bytes of host memory that a trainer pod may use for each GPU by default."""
HOST_MEMORY_BASE = 16 * 2**30
"""Bytes of it for each GPU that no training state can have: libraries, data, and weights while they are loaded."""


class JobIdentity(Model):
    """The FineTuneJob a run belongs to."""

    namespace: str
    name: str
    uid: str


class ChatTemplate(Model):
    """A chat template that replaces the model's own: one of Hone's by name, or the user's own in a file."""

    name: ChatTemplateName | None = None
    mounted: str | None = None
    """Path in the prepare pod of a Jinja template, the value of a ConfigMap's key. Prepare copies it to
    `<run>/chat_template.jinja`, which train and finish read: the ConfigMap may change later."""


class DataPart(Model):
    """One of several sources of training rows."""

    name: str
    path: str
    """A file, a directory or a glob."""
    format: DataFormat = DataFormat.AUTO
    columns: dict[str, str] | None = None
    """As in `DataPaths`."""
    roles: dict[str, Role] | None = None
    """As in `DataPaths`."""
    weight: float = 1.0
    """How often a training row is used in one epoch."""
    max_rows: int | None = None
    """Largest number of rows; None: all."""


class DataPaths(Model):
    """Paths of the data in the pods, and how to read it."""

    train: str
    """A file, a directory or a glob."""
    sources: list[DataPart] | None = None
    """Several sources of training rows, with volumes such as `<mounts>/train/0`; `train` is then the path of the
    first."""
    validation: str | None = None
    test: str | None = None
    validation_fraction: float = 0.1
    """Share of the training rows held out for validation; ignored if `validation` is set."""
    test_fraction: float = 0.1
    """Share held out for the test split; ignored if `test` is set."""
    mounts: str | None = None
    """Directory of the data sets' volumes, such as `<mounts>/train`. No link may lead out of its volume. None: none."""
    format: DataFormat = DataFormat.AUTO
    columns: dict[str, str] | None = None
    """Column names in the rows by Hone's names, where they differ."""
    roles: dict[str, Role] | None = None
    """Roles by the names that messages have for them, where they differ."""
    train_on: TrainOn | None = None
    """None: Assistant for messages, Completion for prompt/completion."""
    balance: Balance | None = None
    """Classification, KTO: how classes of unequal size are balanced; None: the plan chooses."""
    show_example: bool | None = None
    """Whether a training row may be shown in the job's status. None: no."""
    chat_template: ChatTemplate | None = None
    """What replaces the model's chat template; None: nothing."""
    system_prompt: str | None = None
    """The system message of conversations that have none."""
    reasoning: Reasoning | None = None
    """What is done with the reasoning of answers; None: Keep."""
    split_by: SplitBy | None = None
    """What decides which rows are held out; None: the prompt, or the row if most rows have one prompt."""
    max_bad_rows: float | None = None
    """Largest share of rows that may be left out as bad ones; None: `MAX_BAD_ROWS`."""
    min_samples: int = 500
    on_scarce_data: OnScarceData = OnScarceData.WARN


class Topology(Model):
    """The processes of a run, and the resources of each."""

    nodes: int = 1
    """Pods of the gang."""
    processes_per_node: int = 1
    """Ranks per pod; one per GPU where there are GPUs."""
    gpus_per_node: int = 0
    """0: the ranks run on the CPU."""
    zero_stage: int | None = None
    """0 (plain DDP), 2 or 3; None: the plan chooses."""
    micro_batch_size: int | None = None
    """Rows per process and forward pass; None: the plan chooses."""
    memory_bytes: int | None = None
    """Memory of one GPU, or of one CPU rank, in bytes; None: unknown."""
    gpu_by_labels: str | None = None
    """Which GPU it is whose memory the labels of nodes show, and of how many nodes; None: the spec says it, or nobody.
    """
    largest_memory_bytes: int | None = None
    """Memory of the largest GPU that a process may get, if `memory_bytes` is that of the smallest one; None: all have
    as much."""
    compute_capability: str | None = None
    """The lowest one of the GPUs, such as 8.6, by the labels of nodes; None: unknown."""
    precision: Precision | None = None
    """In which type of 16 bits GPUs compute; None: the plan chooses."""
    offload_optimizer: bool | None = None
    """Whether optimizer state and gradients are in host memory; None: the plan chooses."""
    offload_param: bool | None = None
    """Whether weights wait in host memory until they are used; None: the plan chooses."""
    host_memory_bytes: int | None = None
    """Host memory of one process on a GPU in bytes, if the spec limits it; None: as much as the plan needs."""

    @property
    def world_size(self) -> int:
        """All ranks of the gang."""
        return self.nodes * self.processes_per_node

    @property
    def data_parallel_size(self) -> int:
        """Ranks that train on different rows: what an optimizer step's rows are divided by. Here all of them."""
        return self.world_size


class Paths(Model):
    """Directories in the pods."""

    model: str = "/mnt/model"
    """The base model: config, weights, tokenizer. Read-only."""
    reward_model: str | None = None
    """GRPO, RLOO: a model that scores answers, if `reward` has one. Read-only."""
    teacher: str | None = None
    """Distillation: the model to learn from. Read-only."""
    workspace: str = "/mnt/workspace"
    """Shared by all runs on the claim; holds `prepared/` and `scores/`, both content-addressed."""
    run: str = "/mnt/workspace/run"
    """This run's own directory: plan.json, the user's reward functions, checkpoints, verdicts."""
    output: str = "/mnt/output"
    """The root of the artifact's claim. finish writes `<output>/artifact/` (what is served: an adapter or a whole
    model, with tokenizer, chat template and generation config) and, last, `<output>/report.json` (a `Report`);
    an output without report.json is incomplete."""


class UpstreamArtifact(Model):
    """The artifact of another job that a run reads, whole model or adapter, as that job reported it."""

    field: str
    """Path of the field of the spec that names the job."""
    path: str
    """The artifact's directory."""
    digest: str
    """Digest of its files, from the other job's status."""


class Merge(Model):
    """An adapter of another job that prepare merges with its base, before anything reads the model."""

    field: str
    """Path of the field of the spec that names the model."""
    adapter: str
    """The adapter's directory, with tokenizer and chat template."""
    base: str
    """The directory of the model that it was trained on."""
    base_digest: str | None = None
    """Digest of that model's files at that time; None: unknown."""
    merged: str
    """The directory to write the merged model to, on the workspace. It never holds an incomplete model."""


class Download(Model):
    """A model or a data set that prepare downloads, before anything reads it."""

    field: str
    """Path of the field of the spec that names it."""
    uri: str
    """Where it comes from, such as hf://org/name."""
    revision: str | None = None
    """hf://: branch, tag or commit; None: the default branch."""
    downloaded: str
    """The directory to write it to, on the workspace. It never holds an incomplete model or data set. Rows are below
    `rows` in it."""
    endpoint: str | None = None
    """hf://: URL of the Hub, if the administrator set one, which may be inside the cluster; None: the library's own."""
    token_variable: str | None = None
    """hf://: name of the environment variable with the access token; None: there is no token."""
    is_data: bool | None = None
    """Whether it is a data set; None: it is a model."""
    config: str | None = None
    """hf://datasets/: the data set's configuration, also called subset; None: its only or default one."""
    split: str | None = None
    """hf://datasets/: the split; None: that of the field's name."""
    sha256: str | None = None
    """https://: digest of the file, in hex."""
    s3: S3Store | None = None
    """s3://: the store; None: Amazon S3."""
    is_trusted: bool | None = None
    """s3://: whether the administrator allows the store's address also where it is not public; None: no."""
    credentials: dict[str, str] | None = None
    """s3://: names of the environment variables with credentials, by the keys of the Secret; None: there are none."""
    sums: str | None = None
    """Of an artifact that a job published: digest of its SHA256SUMS, which names its files; empty: any. None: it is no
    such artifact."""


ROWS = "rows"
"""The directory below that of a downloaded data set that has its files."""


GENERATION_GPU_SHARE = 0.9
"""Share of the memory of its GPUs that a server takes (vLLM's `--gpu-memory-utilization`)."""


class AnswerServer(Model):
    """A vLLM server next to the ranks of each pod that writes the answers that an adapter's run learns from.

    It serves the base model with `--enable-lora`, `--logprobs-mode processed_logprobs` and
    `VLLM_ALLOW_RUNTIME_LORA_UPDATING`. It runs if the plan says so (`Plan.generation_engine`).
    """

    url: str
    """Its address in the pod, such as http://127.0.0.1:8000."""
    adapters: str
    """A directory that ranks and server see at this path, for the adapter of each step."""
    engine: GenerationEngine = GenerationEngine.VLLM
    """Auto: the plan chooses. VLLM: prepare refuses what a server cannot do. Trainer: there is none."""
    gpus: int = 0
    """Its own GPUs in each pod, over which it spreads the model; 0: it runs on the CPU."""
    memory_bytes: int | None = None
    """Memory of one of them, or of the server on the CPU, in bytes; None: unknown."""


class RunConfig(Model):
    """One run, as its pods see it. Never changes after the run's first pod was created."""

    version: int = VERSION
    job: JobIdentity
    model_name: str
    """Name of the base model in reports, as the user wrote it."""
    objective: Objective = Objective.SFT
    method: Method = Field(default_factory=Method)
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    data: DataPaths
    reward: Rewards | None = None
    """GRPO, RLOO: what answers are rewarded for."""
    topology: Topology = Field(default_factory=Topology)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    paths: Paths = Field(default_factory=Paths)
    materialize: Annotated[list[Merge | Download], Field(alias="merges")] = []
    """What prepare writes to the workspace before anything reads it; `paths` name the results. Its key in the file is
    from a time when merging was all there was, and runs that have started keep it."""
    artifacts: list[UpstreamArtifact] = []
    """What prepare compares with its digest before anything reads it. Runs that an older release started have none."""
    search: Search | None = None
    """Trials of other settings before the training; None: there are none."""
    merge_output: bool = False
    """Whether an adapter is merged with its base at the end. Adapters with a new head are always merged."""
    output_bytes: int | None = None
    """Size of the artifact's claim; None: unknown."""
    answer_server: AnswerServer | None = None
    """Objectives that generate: who may write the answers; None: the model in training itself does."""
    start_deadline_seconds: Annotated[int, Field(gt=0)] = 1800
    """How long a pod of the gang waits for the others: as long as the operator waits for all of them to start."""
    hang_floor_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Training counts as hung after this time without progress, or more where progress usually takes longer."""


IMAGE_ENV = "HONE_IMAGE"
"""Environment variable of finish with the name of its own image, for the artifact's provenance."""


class Publication(Model):
    """A copy of the artifact that publish makes."""

    uri: str
    """s3://bucket/prefix, hf://organization/name or oci://registry/name:tag."""
    digest: str
    """Digest of the artifact, from the job's status."""
    endpoint: str | None = None
    """hf://: URL of the Hub, if the administrator set one, which may be inside the cluster; None: the library's own."""
    s3: S3Store | None = None
    """s3://: the store; None: Amazon S3."""
    is_trusted: bool | None = None
    """Whether the administrator allows the destination's address also where it is not public; None: no."""


class SharedVolume(Model):
    """A volume that jobs share, and which of them still need what is on it, at the time of the attempt.

    Not in the RunConfig, which never changes: other jobs come and go.
    """

    path: str
    """Where the volume is mounted."""
    limit_bytes: int | None = None
    """Largest size of what is kept on it for other jobs; None: what the volume holds."""
    runs: list[str] = []
    """Uids of the other jobs that use it and have not ended, without a plan so far."""
    planned: list[str] = []
    """Those with a plan: what they read has a mark, unless a trainer of an older release prepared them."""
    as_of: float
    """When they were listed, in seconds since 1970. Later jobs are in none of these lists."""


class Attempt(Model):
    """What differs from one attempt of a run to the next."""

    number: Annotated[int, Field(ge=1)]
    memory_fallback_level: Annotated[int, Field(ge=0, alias="memoryRung")] = 0
    """Levels of the memory fallback that earlier attempts have used up; level 0 is the plan itself."""
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the planned rate is multiplied with: below 1 after an attempt that diverged."""
    budget_seconds: Annotated[float, Field(gt=0)] | None = None
    """train: how long the pods may run before they save a checkpoint and stop; None: there is no limit."""
    export_only: bool = False
    """finish: whether to end once the artifact is written, without scores."""
    publish: Publication | None = None
    """publish: what to copy, and to where. Not in the RunConfig, because it may be edited at any time."""
    evaluation: Evaluation | None = None
    """finish: how to score, if that was edited after the RunConfig was made; None: as the RunConfig says."""
    shared: list[SharedVolume] = []
    """prepare: the volumes on which it may remove what no job needs; empty: it removes nothing."""
    record: RunRecord | None = None
    """finish: what only the operator knows of the run, for the report."""
