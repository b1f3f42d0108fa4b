"""The plan: what prepare found in data and model, and what it chose, with a reason for each choice."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.settings import Scheduler

Count = Annotated[int, Field(ge=0)]
Sentence = Annotated[str, Field(max_length=512)]


class BadRows(Model):
    """Rows that were left out, for one reason."""

    reason: Annotated[Sentence, Field(description="What is wrong with the rows, and what to do.")]
    count: Annotated[Count, Field(description="Rows with this fault.")]
    first: Annotated[Sentence, Field(description="File and line, or row, of the first one.")]


class ClassRows(Model):
    """A class and its training rows."""

    label: Annotated[str, Field(max_length=128, description="The class, as the rows name it.")]
    rows: Annotated[Count, Field(description="Training rows of the class.")]


class DatasetSummary(Model):
    """What prepare read, as shown in `status.dataset`."""

    digest: Annotated[str, Field(max_length=128, description="Digest of data, tokenizer, template and options.")]
    format: Annotated[str, Field(max_length=64, description="The format that the rows were read as.")]
    train_on: Annotated[
        str,
        Field(
            max_length=64,
            description="Which tokens carry loss; Label: none, each row's class does; Pair: none, which of two answers "
            "is the better one does; Answers: those that the model writes itself.",
        ),
    ]
    train_rows: Annotated[Count, Field(description="Rows trained on.")]
    validation_rows: Annotated[Count, Field(description="Rows that steer training.")]
    test_rows: Annotated[Count, Field(description="Rows that only score the result.")]
    bad_rows: Annotated[list[BadRows], Field(max_length=8, description="Rows left out, by reason.")] = []
    duplicate_rows: Annotated[Count, Field(description="Rows left out because another split has the same.")] = 0
    truncated_rows: Annotated[Count, Field(description="Training rows cut to the sequence length.")] = 0
    tokens: Annotated[Count, Field(description="Tokens of the training rows.")] = 0
    trained_token_share: Annotated[float, Field(ge=0, le=1, description="Share of the tokens that carry loss.")] = 0.0
    longest_row: Annotated[Count, Field(description="Tokens of the longest training row, before cutting.")] = 0
    class_count: Annotated[Count | None, Field(description="{balances}: number of classes.")] = None
    classes: Annotated[
        list[ClassRows] | None,
        Field(max_length=20, description="{balances}: the classes, the most frequent 20 at most."),
    ] = None
    example: Annotated[
        str | None, Field(max_length=1024, description="A row, decoded, with «» around the tokens that carry loss.")
    ] = None


class MemoryEstimate(Model):
    """Estimated bytes per process at the peak, by part. Formulas: DESIGN, "Choices the plan makes"."""

    weights_bytes: Annotated[Count, Field(description="Model weights.")]
    gradients_bytes: Annotated[Count, Field(description="Gradients.")]
    optimizer_bytes: Annotated[Count, Field(description="Optimizer state, with the fp32 copy of the weights if any.")]
    activations_bytes: Annotated[Count, Field(description="Activations of one micro-batch at the longest row.")]
    overhead_bytes: Annotated[Count, Field(description="Libraries, buffers and a margin.")]
    total_bytes: Annotated[Count, Field(description="Sum of the parts.")]
    limit_bytes: Annotated[Count | None, Field(description="What a process may use, where it is known.")] = None


class Plan(Model):
    """What training will do. Frozen when the first attempt starts."""

    objective: Annotated[str, Field(max_length=32, description="What is trained for.")] = "SFT"
    method: Annotated[str, Field(max_length=32, description="Which weights are trained.")] = "LoRA"
    total_steps: Annotated[int, Field(ge=1, description="Optimizer steps of the whole run.")]
    epochs: Annotated[float, Field(gt=0, description="Passes over the training rows.")]
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")]
    scheduler: Annotated[Scheduler, Field(description="The rate's course.")]
    warmup_ratio: Annotated[float, Field(ge=0, description="Share of the steps over which the rate rises.")]
    global_batch_size: Annotated[
        int,
        Field(
            ge=1,
            description="Rows per optimizer step, over all processes; with packing on average. {rewarded}: answers.",
        ),
    ]
    micro_batch_size: Annotated[int, Field(ge=1, description="Rows, or packed rows, per process and forward pass.")]
    gradient_accumulation_steps: Annotated[int, Field(ge=1, description="Forward passes per optimizer step.")]
    sequence_length: Annotated[int, Field(ge=1, description="Longest row in tokens.")]
    packing: Annotated[
        bool,
        Field(description="Whether several rows are put into one, unseen by each other, instead of padding them."),
    ] = False
    packed_sequence_length: Annotated[
        int | None, Field(ge=1, description="Most tokens of a packed row, where rows are packed.")
    ] = None
    weight_decay: Annotated[float, Field(ge=0, description="AdamW's weight decay.")]
    generations: Annotated[int | None, Field(ge=2, description="{rewarded}: answers to each prompt.")] = None
    max_completion_length: Annotated[
        int | None, Field(ge=1, description="Most tokens of an answer, where the model writes it.")
    ] = None
    temperature: Annotated[
        float | None, Field(gt=0, description="How freely answers are drawn, where the model writes them.")
    ] = None
    beta: Annotated[
        float | None, Field(ge=0, description="How strongly the model is held to its base, where the objective does.")
    ] = None
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradient norm to clip to.")]
    world_size: Annotated[int, Field(ge=1, description="Processes of the gang.")]
    zero_stage: Annotated[int, Field(ge=0, le=3, description="DeepSpeed's ZeRO stage; 0 is plain DDP.")]
    precision: Annotated[
        str,
        Field(
            max_length=16,
            description="Data type of the weights: float32 or bfloat16. On GPUs float32 comes with bfloat16 autocast.",
        ),
    ]
    gradient_checkpointing: Annotated[
        bool, Field(description="Whether activations are computed again in the backward pass, to save memory.")
    ] = False
    activation_offloading: Annotated[
        bool, Field(description="Whether activations wait in host memory for the backward pass; GPUs only.")
    ] = False
    probe: Annotated[
        bool, Field(description="Whether two steps on the longest rows are tried out before the run begins.")
    ] = False
    lora_rank: Annotated[int | None, Field(description="LoRA's rank.")] = None
    lora_alpha: Annotated[int | None, Field(description="LoRA's scale.")] = None
    lora_dropout: Annotated[float | None, Field(description="LoRA's dropout.")] = None
    checkpoint_every_steps: Annotated[int | None, Field(ge=1, description="Optimizer steps between checkpoints.")] = (
        None
    )
    checkpoint_every_minutes: Annotated[
        int | None, Field(ge=1, description="Minutes between checkpoints, where those are not counted in steps.")
    ] = None
    evaluation_every_steps: Annotated[
        int | None,
        Field(ge=1, description="Optimizer steps between evaluations on the validation rows; none without such rows."),
    ] = None
    checkpoint_min_seconds: Annotated[
        float | None, Field(ge=0, description="Least seconds between checkpoints that are counted in steps.")
    ] = None
    parameters: Annotated[Count, Field(description="Parameters of the model.")]
    trainable_parameters: Annotated[Count, Field(description="Parameters that are trained.")]
    checkpoint_bytes: Annotated[Count, Field(description="Estimated size of one checkpoint.")] = 0
    balance: Annotated[
        str | None,
        Field(max_length=16, description="{balances}: Weight where the loss is weighted by class, else None."),
    ] = None
    checkpoint_seconds: Annotated[
        float | None,
        Field(ge=0, description="Estimated seconds to save one checkpoint, where the workspace was measured."),
    ] = None
    memory: Annotated[MemoryEstimate, Field(description="Estimated memory per process.")]
    reasons: Annotated[
        dict[Annotated[str, Field(max_length=64)], Sentence],
        Field(max_length=32, description="Why each value was chosen, by field."),
    ] = {}
    warnings: Annotated[
        list[Sentence], Field(max_length=16, description="What is allowed but probably not wanted.")
    ] = []
