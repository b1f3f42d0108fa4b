"""The training settings that a user can choose: the same types in the FineTuneJob's spec and in the RunConfig."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.benchmarks import MAX_BENCHMARKS, Benchmark
from hone.contract.judge import Judge
from hone.contract.methods import MethodType
from hone.contract.metrics import METRICS, Metric
from hone.contract.scorers import MAX_SCORERS, Scorer

ShortText = Annotated[str, Field(min_length=1, max_length=253)]


class DataFormat(StrEnum):
    """How a row is written."""

    AUTO = "Auto"
    MESSAGES = "Messages"
    SHARE_GPT = "ShareGPT"
    ALPACA = "Alpaca"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT_LABEL = "TextLabel"
    PREFERENCE = "Preference"
    UNPAIRED_PREFERENCE = "UnpairedPreference"
    PROMPT = "Prompt"
    TEXT = "Text"


class TrainOn(StrEnum):
    """Which tokens carry loss."""

    ASSISTANT = "Assistant"
    COMPLETION = "Completion"
    ALL = "All"


class ChatTemplateName(StrEnum):
    """A chat template that Hone has."""

    CHATML = "ChatML"


class Role(StrEnum):
    """Whose message it is."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Reasoning(StrEnum):
    """What is done with the reasoning of answers."""

    KEEP = "Keep"
    DROP = "Drop"


class SplitBy(StrEnum):
    """What decides which rows are held out."""

    PROMPT = "Prompt"
    FIRST_TURN = "FirstTurn"
    ROW = "Row"
    COLUMN = "Column"


MAX_BAD_ROWS = 0.1
"""Largest share of bad rows by default."""


class OnScarceData(StrEnum):
    """What to do with fewer training rows than `minSamples`."""

    WARN = "Warn"
    FAIL = "Fail"


class Balance(StrEnum):
    """How classes of unequal size are balanced."""

    NONE = "None"
    WEIGHT = "Weight"
    """Classification: each row's loss has the weight n / (k · n_c): n rows, k classes, n_c rows of its class. If rows
    may have several classes, those of a class weigh (n − n_c) / n_c in its loss, from 1 to 20. KTO: the rows of the
    rarer label have more weight, so that both labels have about the same."""
    OVERSAMPLE = "Oversample"
    """Training rows of rare classes, or groups of `evaluation.groupBy`, are learned several times in each epoch."""


class Scheduler(StrEnum):
    """The learning rate schedule."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Optimizer(StrEnum):
    """The optimizer, by transformers' name (`optim`)."""

    ADAMW = "adamw_torch_fused"
    ADAMW_8BIT = "adamw_bnb_8bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"

    @property
    def in_8_bits(self) -> bool:
        """Whether the moments are held in 8 bits, by bitsandbytes."""
        return self is not Optimizer.ADAMW

    @property
    def paged(self) -> bool:
        """Whether the GPU's driver may move the moments to host memory while they are not used."""
        return self is Optimizer.PAGED_ADAMW_8BIT


class Precision(StrEnum):
    """A type of 16 bits in which GPUs compute, by torch's name."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


OPTIMIZERS_8_BIT = tuple(name.value for name in Optimizer if name.in_8_bits)


class GenerationEngine(StrEnum):
    """What generates the answers that a run learns from; Auto in a spec alone."""

    AUTO = "Auto"
    TRAINER = "Trainer"
    VLLM = "VLLM"


class Lora(Model):
    """LoRA's own settings (PEFT's `LoraConfig`)."""

    rank: Annotated[
        int, Field(ge=1, le=512, description="Rank of the update matrices. vLLM serves ranks up to 512.")
    ] = 32
    alpha: Annotated[
        int | None,
        Field(ge=1, le=4096, description="Scale: the update is multiplied by alpha / rank. Default: the rank."),
    ] = None
    dropout: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Dropout probability in the LoRA layers. Default: 0.05 for {lora_dropout} with fewer than "
            "10,000 training rows, 0 in all other cases. Adapters on experts have none.",
        ),
    ] = None
    target_modules: Annotated[
        list[ShortText] | None,
        Field(
            min_length=1,
            max_length=64,
            description="Names of the modules to adapt. Default: all linear layers of the language model, and experts "
            "where PEFT can adapt them.",
        ),
    ] = None


class Freeze(Model):
    """Weights of the base model that method Full does not train."""

    layers: Annotated[
        int, Field(ge=0, le=10_000, description="Number of decoder layers to freeze, from the first one on.")
    ] = 0
    embeddings: Annotated[
        bool,
        Field(
            description="Whether to freeze the input embeddings. An output head that is tied to them is frozen as well."
        ),
    ] = False


class Method(Model):
    """Which weights are trained, and how."""

    type: Annotated[
        MethodType,
        Field(description="Weights to train. {methods}"),
    ] = MethodType.LORA
    lora: Annotated[Lora | None, Field(description="Settings of LoRA. Allowed only with type {adapter_methods}.")] = (
        None
    )
    freeze: Annotated[
        Freeze | None, Field(description="Weights that are not trained. Allowed only with type {weight_methods}.")
    ] = None


class Hyperparameters(Model):
    """Training settings. All are optional; `status.plan` shows the values in use and why they were chosen."""

    epochs: Annotated[
        float | None,
        Field(
            gt=0,
            le=1000,
            description="Number of passes over the training rows. Cannot be set together with maxSteps. Default: "
            "{epochs}.",
        ),
    ] = None
    max_steps: Annotated[
        int | None, Field(ge=1, le=100_000_000, description="Number of optimizer steps, instead of epochs.")
    ] = None
    learning_rate: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Peak learning rate. Default: {learning_rate}. With {weight_methods}, it falls by the square "
            "root of the size above 2 billion parameters. With adapters, it rises for models with a hidden size below "
            "2048.",
        ),
    ] = None
    scheduler: Annotated[
        Scheduler | None,
        Field(description="Learning rate schedule. Default: {scheduler}."),
    ] = None
    warmup_ratio: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Fraction of the optimizer steps over which the learning rate rises to its peak. "
            "Default: {warmup_ratio}.",
        ),
    ] = None
    global_batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Rows per optimizer step, over all processes; a multiple of the number of processes. "
            "{least_rows} for each process. {rewarded}: answers instead of rows, a multiple of generations as well. "
            "Default: {global_batch_size}; adjusted to the nearest valid value. On GPUs, more where rows are "
            "short: up to 8192 tokens for each GPU, but at most {largest_batch_size}, and while at least 100 optimizer "
            "steps are left.",
        ),
    ] = None
    sequence_length: Annotated[
        int | None,
        Field(
            ge=8,
            le=10_000_000,
            description="Maximum length of a row in tokens. Longer rows are truncated at the end. {on_policy}: maximum "
            "length of prompt and answer together; prompts that leave no room for maxCompletionLength tokens are left "
            "out. Default: the length of the longest row, at most the context length of the model.",
        ),
    ] = None
    packing: Annotated[
        bool | None,
        Field(
            description="Whether to pack several short rows into one sequence instead of padding them. Attention does "
            "not cross from one row to another. Can be true only with objective {packs}. Rows that are longer "
            "than a packed sequence stay alone. Default: true if it saves at least 10 % of the computation and "
            "leaves at least 100 optimizer steps."
        ),
    ] = None
    beta: Annotated[
        float | None,
        Field(
            ge=0,
            le=10,
            description="{held_to_reference}: how strongly the model is kept close to the base model; a higher value "
            "allows less change. {beta_without_reference}: weight in the loss of making the worse answer less likely, "
            "relative to learning the better one. Default: {beta}. 0 is allowed only for {beta_zero}.",
        ),
    ] = None
    generations: Annotated[
        int | None,
        Field(
            ge=2,
            le=1024,
            description="{rewarded}: number of answers generated for each prompt, whose rewards are compared with one "
            "another. Default: {generations}.",
        ),
    ] = None
    max_completion_length: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="{on_policy}: maximum length in tokens of an answer that the model generates, in training and "
            "in evaluation. Default: 256, at most half of sequenceLength or of the model's context length.",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="{on_policy}: sampling temperature of the answers generated in training. Evaluation decodes "
            "greedily. Default: 1.",
        ),
    ] = None
    optim: Annotated[
        Optimizer | None,
        Field(
            description="Optimizer. adamw_torch_fused is AdamW with two moments of 4 bytes for each trained parameter; "
            "adamw_bnb_8bit holds them in 8 bits; paged_adamw_8bit also lets the GPU's driver move them to host "
            "memory. The last two need GPUs, and zeroStage 0. Default: adamw_torch_fused, unless {weight_methods} on "
            "one GPU fits in memory only with another one."
        ),
    ] = None
    weight_decay: Annotated[float | None, Field(ge=0, le=1, description="Weight decay of AdamW. Default: 0.")] = None
    max_grad_norm: Annotated[
        float | None, Field(gt=0, le=1000, description="Maximum norm to which gradients are clipped. Default: 1.0.")
    ] = None
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Random seed of new weights, row order and dropout.")
    ] = 42


class Select(StrEnum):
    """Which checkpoint is exported."""

    BEST = "Best"
    LAST = "Last"


class Checkpoint(Model):
    """How often training saves a checkpoint, and how many are retained."""

    every_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000_000,
            description="Optimizer steps between checkpoints. Cannot be set together with everyMinutes. Default: 10 % "
            "of the steps, or more if saving a checkpoint takes long.",
        ),
    ] = None
    every_minutes: Annotated[
        int | None, Field(ge=1, le=10_080, description="Minutes between checkpoints, instead of everySteps.")
    ] = None
    keep: Annotated[
        int, Field(ge=1, le=100, description="Number of complete checkpoints to retain. Older ones are deleted.")
    ] = 2
    select: Annotated[
        Select | None,
        Field(
            description="Checkpoint that is exported. Best: the one with the lowest loss on the validation rows, which "
            "is saved after each evaluation that is better than all before, and retained in addition to keep. Last: "
            "that of the last step. Default: Best if there are validation rows that are evaluated during training, "
            "else Last."
        ),
    ] = None
    continue_from: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="Name of an earlier job in the same namespace, with the same spec and the same "
            "workspace.claimName, whose newest complete checkpoint training starts from. It may have failed or been "
            "deleted, and may have had the name of this job.",
        ),
    ] = None
    grace_period_seconds: Annotated[
        int,
        Field(ge=1, le=3600, description="Seconds that a trainer pod has after SIGTERM to save a checkpoint and stop."),
    ] = 120


class EarlyStopping(Model):
    """When training ends before its last step."""

    patience: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Number of consecutive evaluations on the validation rows without a new lowest loss after "
            "which training ends. status.plan has the number of steps between evaluations.",
        ),
    ]


class RetentionSet(StrEnum):
    """A set of questions about what the base model could do before."""

    GENERAL = "General"


class Retention(Model):
    """Whether the tuned model has forgotten what the base model could do."""

    set: Annotated[
        RetentionSet,
        Field(
            description="Questions that both models are scored on. General: 240 short questions in eight skills, such "
            "as arithmetic, reading and knowledge, that Hone generates."
        ),
    ] = RetentionSet.GENERAL


MAX_MINUTES = 60
"""Most minutes for scoring by default."""


class Evaluation(Model):
    """How the base and the tuned model are scored on the test split."""

    max_samples: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Maximum number of test rows on which base model and tuned model are scored, and of validation "
            "rows that are evaluated during training.",
        ),
    ] = 500
    max_new_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=32_768,
            description="Maximum number of tokens to generate for a test row. {on_policy}: maxCompletionLength applies "
            "instead.",
        ),
    ] = 64
    max_minutes: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_080,
            description="{writes_scored}: most minutes for scoring base and tuned model. The speed is measured on the "
            "first rows; where maxSamples rows would take longer, fewer are scored, but at least 100. Default: "
            f"{MAX_MINUTES}.",
        ),
    ] = None
    metrics: Annotated[
        list[Metric] | None,
        Field(
            min_length=1,
            max_length=len(Metric),
            description="{compares_answers}: metrics of answers, the main one first; loss is measured in any case. "
            + "; ".join(f"{metric.value}: {what}" for metric, what in METRICS.items())
            + ". Default: those that suit the references; the model card says why.",
        ),
    ] = None
    early_stopping: Annotated[
        EarlyStopping | None,
        Field(
            description="Ends training once the loss on the validation rows stops falling. Default: training runs to "
            "its last step. An edit has no effect after training has started."
        ),
    ] = None
    group_by: Annotated[
        ShortText | None,
        Field(
            description="Column of the test rows, such as language, by whose values they are scored separately. A "
            "group needs 30 rows. Cannot change after training has started. Default: no groups."
        ),
    ] = None
    retention: Annotated[
        Retention | None,
        Field(
            description="Scores base model and tuned model on general questions as well, to show what was forgotten. "
            "Default: they are not asked."
        ),
    ] = None
    benchmarks: Annotated[
        list[Benchmark] | None,
        Field(
            min_length=1,
            max_length=MAX_BENCHMARKS,
            description="{compares_answers}: further data sets on which both models are scored. Default: none.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    scorers: Annotated[
        list[Scorer] | None,
        Field(
            min_length=1,
            max_length=MAX_SCORERS,
            description="{compares_answers}: metrics of answers by functions of your own, next to the other metrics. "
            "Default: none.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    judge: Annotated[
        Judge | None,
        Field(
            description="{compares_answers}: lets another model compare the answers of base and tuned model. Default: "
            "none does."
        ),
    ] = None
