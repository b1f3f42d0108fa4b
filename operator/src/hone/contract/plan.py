"""The plan: a summary of data and model, and the values that prepare chose, each with its reason."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import MAX_BYTES, MAX_INT32, Model
from hone.contract.search import PlannedSearch
from hone.contract.settings import GenerationEngine, Optimizer, Precision, Scheduler, Select

Count = Annotated[int, Field(ge=0, le=MAX_INT32)]
Amount = Annotated[int, Field(ge=0, le=MAX_BYTES)]
"""A number of bytes, parameters or tokens."""
Positive = Annotated[int, Field(ge=1, le=MAX_INT32)]
Sentence = Annotated[str, Field(max_length=512)]


class BadRows(Model):
    """Rows that were left out for the same reason."""

    reason: Annotated[Sentence, Field(description="What is wrong with the rows, and how to fix them.")]
    count: Annotated[Count, Field(description="Number of rows with this error.")]
    first: Annotated[Sentence, Field(description="File and line, or row number, of the first such row.")]


class UnusedKey(Model):
    """A key of rows or messages that nothing reads."""

    key: Annotated[
        str,
        Field(max_length=128, description="Column, or key of messages such as messages[].name."),
    ]
    count: Annotated[Count, Field(description="Number of rows, or of messages, that have it.")]


class ClassRows(Model):
    """A class and the number of its training rows."""

    label: Annotated[str, Field(max_length=128, description="Name of the class, as in the data.")]
    rows: Annotated[Count, Field(description="Number of training rows of the class.")]


class SourceRows(Model):
    """The rows of one of several sources of training rows."""

    name: Annotated[str, Field(max_length=63, description="Name of the source.")]
    format: Annotated[str, Field(max_length=64, description="Format of its rows.")]
    rows: Annotated[Count, Field(description="Number of rows that can be used, at most maxRows.")]
    bad_rows: Annotated[Count, Field(description="Number of rows that were left out because they cannot be used.")]
    train_rows: Annotated[
        Count, Field(description="Number of training rows in one epoch: without held-out rows, multiplied by weight.")
    ]


class DatasetSummary(Model):
    """The data that prepare read, as shown in `status.dataset`."""

    digest: Annotated[
        str, Field(max_length=128, description="Digest of the data, tokenizer, chat template and options.")
    ]
    format: Annotated[str, Field(max_length=64, description="Format of the rows, detected or set in the spec.")]
    train_on: Annotated[
        str,
        Field(
            max_length=64,
            description="What the loss is computed on. Assistant, Completion or All: these tokens of each row. Label: "
            "the class of each row. Pair: which of two answers is better. Answers: the answers that the model "
            "generates.",
        ),
    ]
    train_rows: Annotated[Count, Field(description="Number of training rows.")]
    validation_rows: Annotated[
        Count, Field(description="Number of validation rows, which are evaluated during training.")
    ]
    test_rows: Annotated[Count, Field(description="Number of test rows, on which the result is scored.")]
    bad_rows: Annotated[list[BadRows], Field(max_length=8, description="Rows that were left out, by reason.")] = []
    unused_keys: Annotated[
        list[UnusedKey],
        Field(
            max_length=16, description="Columns and keys of messages that training does not use, most frequent first."
        ),
    ] = []
    sources: Annotated[
        list[SourceRows] | None, Field(max_length=16, description="Rows of each source, if there are several.")
    ] = None
    duplicate_rows: Annotated[
        Count, Field(description="Number of rows left out because another split contains the same row.")
    ] = 0
    truncated_rows: Annotated[Count, Field(description="Number of training rows truncated to the sequence length.")] = 0
    tokens: Annotated[Amount, Field(description="Number of tokens in the training rows.")] = 0
    trained_token_share: Annotated[
        float, Field(ge=0, le=1, description="Fraction of the tokens on which the loss is computed, from 0 to 1.")
    ] = 0.0
    longest_row: Annotated[
        Count, Field(description="Length of the longest training row in tokens, before truncation.")
    ] = 0
    class_count: Annotated[Count | None, Field(description="{balances}: number of classes.")] = None
    classes: Annotated[
        list[ClassRows] | None,
        Field(max_length=20, description="{balances}: the classes, at most the 20 most frequent ones."),
    ] = None
    example: Annotated[
        str | None,
        Field(
            max_length=1024,
            description="A training row, decoded, with «» around the tokens on which the loss is computed. Only with "
            "dataset.showExample.",
        ),
    ] = None
    example_outline: Annotated[
        str | None, Field(max_length=256, description="Parts of a training row, with their lengths in characters.")
    ] = None


class MemoryEstimate(Model):
    """Estimated peak memory per process in bytes, by part. Formulas: DESIGN, "Choices the plan makes"."""

    weights_bytes: Annotated[Amount, Field(description="Bytes of the model weights.")]
    gradients_bytes: Annotated[Amount, Field(description="Bytes of the gradients.")]
    optimizer_bytes: Annotated[
        Amount,
        Field(description="Bytes of the optimizer state, including a float32 copy of the weights if there is one."),
    ]
    activations_bytes: Annotated[
        Amount, Field(description="Bytes of the activations of one micro-batch of the longest row.")
    ]
    overhead_bytes: Annotated[Amount, Field(description="Bytes of libraries and buffers, and a safety margin.")]
    total_bytes: Annotated[Amount, Field(description="Sum of the parts in bytes.")]
    limit_bytes: Annotated[Amount | None, Field(description="Bytes that a process may use, if known.")] = None


class Plan(Model):
    """The settings that training uses. Does not change after the first attempt has started."""

    objective: Annotated[str, Field(max_length=32, description="Training objective.")] = "SFT"
    method: Annotated[str, Field(max_length=32, description="Training method: LoRA, QLoRA or Full.")] = "LoRA"
    total_steps: Annotated[Positive, Field(description="Number of optimizer steps of the whole run.")]
    epochs: Annotated[float, Field(gt=0, description="Number of passes over the training rows.")]
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")]
    scheduler: Annotated[Scheduler, Field(description="Learning rate schedule.")]
    warmup_ratio: Annotated[float, Field(ge=0, description="Fraction of the steps over which the learning rate rises.")]
    global_batch_size: Annotated[
        Positive,
        Field(
            description="Rows per optimizer step, over all processes; with packing, on average. {rewarded}: answers "
            "instead of rows.",
        ),
    ]
    micro_batch_size: Annotated[Positive, Field(description="Rows, or packed sequences, per process and forward pass.")]
    micro_batch_tokens: Annotated[
        Positive | None,
        Field(
            description="Most tokens of a forward pass, with padding, if micro-batches have as many rows as fit into "
            "that instead of microBatchSize."
        ),
    ] = None
    gradient_accumulation_steps: Annotated[
        Positive,
        Field(
            description="Number of forward and backward passes per optimizer step; with microBatchTokens, the most "
            "that are needed."
        ),
    ]
    sequence_length: Annotated[Positive, Field(description="Maximum length of a row in tokens.")]
    packing: Annotated[
        bool,
        Field(description="Whether several rows are packed into one sequence instead of being padded."),
    ] = False
    packed_sequence_length: Annotated[
        Positive | None, Field(description="Maximum length of a packed sequence in tokens, if rows are packed.")
    ] = None
    length_grouping: Annotated[
        bool | None,
        Field(description="Whether the rows of a step are sorted by length, so that a micro-batch is padded less."),
    ] = None
    weight_decay: Annotated[float, Field(ge=0, description="Weight decay of AdamW.")]
    generations: Annotated[
        int | None, Field(ge=2, le=MAX_INT32, description="{rewarded}: number of answers generated for each prompt.")
    ] = None
    max_completion_length: Annotated[
        Positive | None,
        Field(description="{on_policy}: maximum length in tokens of an answer that the model generates."),
    ] = None
    temperature: Annotated[
        float | None, Field(gt=0, description="{on_policy}: sampling temperature of the answers generated in training.")
    ] = None
    generation_engine: Annotated[
        GenerationEngine | None,
        Field(description="What generates the answers in training, if spec.generation is set: VLLM or Trainer."),
    ] = None
    generation_memory_bytes: Annotated[
        Amount | None,
        Field(
            description="Estimated memory of the vLLM server in each trainer pod in bytes, on each of its GPUs, or in "
            "all if it has none."
        ),
    ] = None
    beta: Annotated[
        float | None, Field(ge=0, description="Value of hyperparameters.beta, for objectives that use it.")
    ] = None
    max_grad_norm: Annotated[float, Field(gt=0, description="Maximum norm to which gradients are clipped.")]
    world_size: Annotated[Positive, Field(description="Number of training processes over all pods.")]
    zero_stage: Annotated[int, Field(ge=0, le=3, description="ZeRO stage of DeepSpeed; 0 is plain DDP.")]
    precision: Annotated[
        str,
        Field(
            max_length=16,
            description="Data type of the weights: float32, bfloat16 or float16. On GPUs, float32 weights are used "
            "with autocast to computeDtype.",
        ),
    ]
    compute_dtype: Annotated[
        Precision | None, Field(description="Data type in which GPUs compute, if it is not bfloat16.")
    ] = None
    gradient_checkpointing: Annotated[
        bool, Field(description="Whether activations are recomputed in the backward pass to save memory.")
    ] = False
    activation_offloading: Annotated[
        bool, Field(description="Whether activations are kept in host memory until the backward pass. GPUs only.")
    ] = False
    optim: Annotated[
        Optimizer | None,
        Field(description="Optimizer by transformers' name, if it is not adamw_torch_fused."),
    ] = None
    offload_optimizer: Annotated[
        bool | None, Field(description="Whether optimizer state and gradients are in host memory. GPUs only.")
    ] = None
    offload_param: Annotated[
        bool | None, Field(description="Whether weights wait in host memory until they are used. GPUs only.")
    ] = None
    host_memory_bytes: Annotated[
        Amount | None,
        Field(description="Estimated host memory of a trainer pod in bytes, if a part of the training state is there."),
    ] = None
    probe: Annotated[
        bool, Field(description="Whether two steps on the longest rows are run as a test before training starts.")
    ] = False
    lora_rank: Annotated[Positive | None, Field(description="Rank of LoRA.")] = None
    lora_alpha: Annotated[Count | None, Field(description="Scale of LoRA: updates are multiplied by alpha / rank.")] = (
        None
    )
    lora_dropout: Annotated[float | None, Field(description="Dropout probability of LoRA.")] = None
    checkpoint_every_steps: Annotated[Positive | None, Field(description="Optimizer steps between checkpoints.")] = None
    checkpoint_every_minutes: Annotated[
        Positive | None, Field(description="Minutes between checkpoints, if set instead of steps.")
    ] = None
    evaluation_every_steps: Annotated[
        Positive | None,
        Field(
            description="Optimizer steps between evaluations on the validation rows. Absent without validation rows.",
        ),
    ] = None
    checkpoint_select: Annotated[
        Select | None, Field(description="Checkpoint that is exported: Best by the validation rows, or Last.")
    ] = None
    checkpoint_min_seconds: Annotated[
        float | None,
        Field(ge=0, description="Minimum number of seconds between two checkpoints, if checkpointEverySteps is set."),
    ] = None
    parameters: Annotated[Amount, Field(description="Number of parameters of the model.")]
    trainable_parameters: Annotated[Amount, Field(description="Number of parameters that are trained.")]
    checkpoint_bytes: Annotated[Amount, Field(description="Estimated size of one checkpoint in bytes.")] = 0
    scoring_gpus: Annotated[
        Positive | None, Field(description="Number of GPUs of the pod that scores the model at the end.")
    ] = None
    scoring_memory_bytes: Annotated[
        Amount | None,
        Field(
            description="Estimated memory for scoring, which holds the model in 16 bits: bytes on each of these GPUs, "
            "or of the pod if there are none."
        ),
    ] = None
    scoring_minutes: Annotated[
        Positive | None,
        Field(description="Most minutes for scoring at the end; fewer test rows are scored if they would take longer."),
    ] = None
    balance: Annotated[
        str | None,
        Field(
            max_length=16,
            description="{balances}: Weight if the loss is weighted by class, Oversample if rows of rare ones are "
            "repeated, else None.",
        ),
    ] = None
    search: Annotated[PlannedSearch | None, Field(description="Trials before the training, with spec.search.")] = None
    checkpoint_seconds: Annotated[
        float | None,
        Field(
            ge=0, description="Estimated seconds to save one checkpoint, if the workspace's write speed was measured."
        ),
    ] = None
    memory: Annotated[MemoryEstimate, Field(description="Estimated memory per process.")]
    reasons: Annotated[
        dict[Annotated[str, Field(max_length=64)], Sentence],
        Field(max_length=128, description="Why each value was chosen, by field name."),
    ] = {}
    warnings: Annotated[
        list[Sentence], Field(max_length=16, description="Settings that are allowed but probably a mistake.")
    ] = []

    @property
    def half(self) -> str:
        """Torch's name of the type in which GPUs compute."""
        return (self.compute_dtype or Precision.BFLOAT16).value

    @property
    def batches_per_step(self) -> tuple[int, int]:
        """Rows of a batch of one process, and batches of a step, as transformers counts them: where micro-batches are
        cut by tokens, a step is one batch, whose only row is all that a process trains on."""
        return (1, 1) if self.micro_batch_tokens else (self.micro_batch_size, self.gradient_accumulation_steps)
