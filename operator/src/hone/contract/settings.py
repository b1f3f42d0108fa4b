"""The choices a user may make about training. The same types stand in the FineTuneJob's spec and in the RunConfig."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.methods import MethodType

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


class TrainOn(StrEnum):
    """Which tokens carry loss."""

    ASSISTANT = "Assistant"
    COMPLETION = "Completion"
    ALL = "All"


class OnScarceData(StrEnum):
    """What to do with fewer training rows than `minSamples`."""

    WARN = "Warn"
    FAIL = "Fail"


class Balance(StrEnum):
    """What is done about classes of unequal size."""

    NONE = "None"
    WEIGHT = "Weight"
    """Classification: each row's loss counts n / (k · n_c): n rows, k classes, n_c rows of its class. KTO: the rows of
    the scarcer label count more, so that both weigh about the same."""


class Scheduler(StrEnum):
    """The learning rate's course."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Lora(Model):
    """LoRA's own settings (PEFT's `LoraConfig`)."""

    rank: Annotated[int, Field(ge=1, le=512, description="Rank of the update matrices. vLLM serves up to 512.")] = 32
    alpha: Annotated[int | None, Field(ge=1, le=4096, description="Scale; default: the rank.")] = None
    dropout: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Dropout; default: 0.05 for {lora_dropout} below 10,000 training rows, else 0.",
        ),
    ] = None
    target_modules: Annotated[
        list[ShortText] | None,
        Field(min_length=1, max_length=64, description="Names of the modules to adapt; default: all linear layers."),
    ] = None


class Freeze(Model):
    """Weights of the base model that Full leaves as they are."""

    layers: Annotated[
        int, Field(ge=0, le=10_000, description="How many decoder layers to freeze, the first ones of the model.")
    ] = 0
    embeddings: Annotated[
        bool,
        Field(description="Freeze the input embeddings; where the output head is tied to them, it is frozen too."),
    ] = False


class Method(Model):
    """Which weights are trained, and how."""

    type: Annotated[
        MethodType,
        Field(
            description="LoRA trains small matrices beside the frozen weights; QLoRA does so, and holds the frozen "
            "weights in 4 bits; Full trains every weight."
        ),
    ] = MethodType.LORA
    lora: Annotated[Lora | None, Field(description="LoRA's settings; only with type LoRA or QLoRA.")] = None
    freeze: Annotated[Freeze | None, Field(description="Weights that are not trained; only with type Full.")] = None


class Hyperparameters(Model):
    """Training settings. All optional: what was chosen, and why, stands in `status.plan`."""

    epochs: Annotated[
        float | None,
        Field(
            gt=0,
            le=1000,
            description="Passes over the training rows. Default: {epochs}.",
        ),
    ] = None
    max_steps: Annotated[int | None, Field(ge=1, le=100_000_000, description="Optimizer steps; instead of epochs.")] = (
        None
    )
    learning_rate: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Peak learning rate. Default: {learning_rate}.",
        ),
    ] = None
    scheduler: Annotated[
        Scheduler | None,
        Field(description="The learning rate's course. Default: {scheduler}."),
    ] = None
    warmup_ratio: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="Share of the steps over which the rate rises. Default: {warmup_ratio}.",
        ),
    ] = None
    global_batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Rows per optimizer step over all processes, a multiple of their number. {least_rows} for each "
            "process. {rewarded}: answers, a multiple of `generations`, too. Default: the nearest that fits "
            "to {global_batch_size}.",
        ),
    ] = None
    sequence_length: Annotated[
        int | None,
        Field(
            ge=8,
            le=10_000_000,
            description="Longest row in tokens; longer rows lose their end. Default: the longest row, at most the "
            "model's. {on_policy}: prompt and answer together; prompts that leave no room for the longest "
            "answer are left out.",
        ),
    ] = None
    packing: Annotated[
        bool | None,
        Field(
            description="Whether several short rows are put into one, unseen by each other, instead of padding them; "
            "{packs} only. Default: where it saves a tenth of the work and leaves at least 100 steps."
        ),
    ] = None
    beta: Annotated[
        float | None,
        Field(
            ge=0,
            le=10,
            description="{held_to_reference}: how strongly the model is held to its base; a higher one allows less "
            "change. {beta_without_reference}: how much it counts that the worse answer becomes less likely, next to "
            "learning the better one. Default: {beta}. 0 is valid for {beta_zero} only.",
        ),
    ] = None
    generations: Annotated[
        int | None,
        Field(
            ge=2,
            le=1024,
            description="{rewarded}: answers to each prompt, which are compared with one another. Default: "
            "{generations}.",
        ),
    ] = None
    max_completion_length: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="{on_policy}: most tokens of an answer of the model's own, in training and in "
            "scores. Default: 256, at most half of sequenceLength or of the model's context.",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="{on_policy}: how freely answers are drawn while training. Default: 1. "
            "Scores are of the likeliest answers.",
        ),
    ] = None
    weight_decay: Annotated[float | None, Field(ge=0, le=1, description="AdamW's weight decay; default: 0.")] = None
    max_grad_norm: Annotated[
        float | None, Field(gt=0, le=1000, description="Gradient norm to clip to; default: 1.0.")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of weights, order and dropout.")] = 42


class Checkpoint(Model):
    """How often training saves itself."""

    every_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000_000,
            description="Optimizer steps between checkpoints; default: a tenth of the run, or less often if it pays.",
        ),
    ] = None
    every_minutes: Annotated[
        int | None, Field(ge=1, le=10_080, description="Minutes between checkpoints; instead of everySteps.")
    ] = None
    keep: Annotated[int, Field(ge=1, le=100, description="Newest whole checkpoints to keep.")] = 2
    grace_period_seconds: Annotated[
        int, Field(ge=1, le=3600, description="Seconds a trainer pod has after SIGTERM to save and stop.")
    ] = 120


class Evaluation(Model):
    """How the base and the tuned model are scored on the test split."""

    max_samples: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Most test rows to score, for base and tuned model alike, "
            "and most validation rows to evaluate during training.",
        ),
    ] = 500
    max_new_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=32_768,
            description="Most tokens per row when answers are compared; {on_policy}: maxCompletionLength is.",
        ),
    ] = 64
