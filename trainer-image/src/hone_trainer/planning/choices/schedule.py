"""The course of a run over time: its steps, their rates, when it is evaluated and when it saves checkpoints."""

import math

from pydantic.alias_generators import to_camel

from hone.contract.settings import OPTIMIZERS_8_BIT, Select
from hone_trainer.data.length_groups import grouped, passes_and_work, unused_share
from hone_trainer.planning import needs
from hone_trainer.planning.batches import default_epochs, steps_per_epoch, steps_per_pass, why_by_rows
from hone_trainer.planning.checkpoint_schedule import plan_evaluations, plan_saves
from hone_trainer.planning.choices.base import SET_IN_THE_SPEC, Choice, Choices, spec_or
from hone_trainer.planning.choices.placement import divides_by_tokens, weight_bytes
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.memory import checkpoint_bytes
from hone_trainer.protocol.errors import BadInput

_FEW_STEPS = 20
_MIN_LESS_PADDING = 0.05
"""Share of a step's work that sorted rows have to save."""
_MIN_FEWER_PASSES = 0.1
"""Share of a step's forward passes that micro-batches of varying numbers of rows have to save."""
_ROWS_TRIED = 50_000
"""Training rows, which are shuffled, that padding is counted on."""
_FULL_RATE_UP_TO = 2_000_000_000
"""Parameters up to which Full has the objective's default rate. From there its rates follow those that were published
for 8 and 70 billion parameters, 5e-6 and 2e-6 (N. Lambert et al., Tulu 3, arXiv 2411.15124)."""

_ADAPTER_RATE_FROM, _ADAPTER_RATE_POWER, _ADAPTER_RATE_FACTOR = 2048, 0.78, 10.0
"""Hidden size from which adapters have the objective's default rate, and how much it rises below: the best rates of
LoRA that were published for Llama models fall with this power of the hidden size (J. Schulman et al., LoRA Without
Regret, 2025, and the code that came with it). At most by the factor, beyond which nothing was published."""


def choose_accumulation(inputs: PlanInputs, choices: Choices) -> Choices:
    """Forward passes of an optimizer step: what makes the global batch exact."""
    share, processes = choices.rows_per_process, inputs.topology.data_parallel_size
    micro = choices.get("micro_batch_size", int)
    kind = "packed rows" if choices.packing.length else "answers" if inputs.generations else "rows"
    why = f"{share * processes} {kind} / ({micro} × {processes} processes)."
    return choices.choose(gradient_accumulation_steps=Choice(share // micro, why))


def choose_micro_batch_tokens(inputs: PlanInputs, choices: Choices) -> Choices:
    """How many tokens a micro-batch has at most, where as many rows as fit into that take fewer forward passes."""
    if not divides_by_tokens(inputs, choices) or choices.values["offload_optimizer"]:
        # In host memory DeepSpeed sums gradients only over a number of passes that it knows before.
        return choices
    most = choices.get("gradient_accumulation_steps", int)
    tokens, lengths = choices.get("micro_batch_size", int) * inputs.sequence_length, inputs.lengths[:_ROWS_TRIED]
    processes = inputs.topology.data_parallel_size
    passes, _ = passes_and_work(lengths, choices.rows_per_process * processes, tokens, processes)
    if passes > most * (1 - _MIN_FEWER_PASSES):
        return choices
    real = choices.rows_per_process * inputs.tokens_per_row / passes
    why = (
        f"{passes:.1f} forward passes a step instead of {most}, of {real:.0f} tokens without padding, since rows are "
        "shorter than the longest."
    )
    return choices.choose(micro_batch_tokens=Choice(tokens, why))


def choose_length_grouping(inputs: PlanInputs, choices: Choices) -> Choices:
    """Whether the rows of a step are sorted by length before they are divided into micro-batches."""
    micro, processes = choices.get("micro_batch_size", int), inputs.topology.data_parallel_size
    objection = "Rows are packed." if choices.packing.length else needs.fixed_order(inputs.objective)
    if objection or not inputs.lengths:
        return choices.choose(length_grouping=Choice(False, objection or "Lengths of rows are unknown."))
    lengths = inputs.lengths[:_ROWS_TRIED]
    per_step = choices.rows_per_process * processes
    sorted_rows = [lengths[row] for row in grouped(range(len(lengths)), lengths, per_step)]
    before, after = (unused_share(rows, micro * processes) for rows in (lengths, sorted_rows))
    groups = before - after >= _MIN_LESS_PADDING
    if tokens := choices.values.get("micro_batch_tokens"):
        _, work = passes_and_work(lengths, per_step, int(str(tokens)), processes)
        groups, after = True, 1 - sum(lengths) / len(lengths) * per_step / work
    why = f"Padding takes {before:.0%} of a step's work; {after:.0%} with rows of similar length in a micro-batch."
    return choices.choose(length_grouping=Choice(groups, why))


def choose_steps(inputs: PlanInputs, choices: Choices) -> Choices:
    """Optimizer steps and epochs, the one by the other.

    Raises:
        BadInput: there are too few prompts for a single step.
    """
    spec, per_epoch = inputs.spec, _steps_per_epoch(inputs, choices)
    if spec.max_steps is not None:
        total = spec.max_steps
        choices = choices.choose(
            total_steps=Choice(total, "spec.hyperparameters.maxSteps."),
            epochs=Choice(total / per_epoch, f"{total} steps / {per_epoch} steps an epoch."),
        )
    else:
        choices = choices.choose(epochs=_epochs(inputs))
        epochs = choices.get("epochs", float)
        total = math.ceil(epochs * per_epoch)
        choices = choices.choose(total_steps=Choice(total, f"{epochs:g} epochs × {per_epoch} steps."))
    if total >= _FEW_STEPS:
        return choices
    return choices.warn(f"Only {total} optimizer steps: add rows or epochs, or lower globalBatchSize.")


def _steps_per_epoch(inputs: PlanInputs, choices: Choices) -> int:
    if inputs.generations:
        return steps_per_pass(inputs.rows, choices.get("global_batch_size", int) // inputs.generations)
    rows, processes = choices.packing.rows or inputs.rows, inputs.topology.data_parallel_size
    micro, accumulation = (choices.get(name, int) for name in ("micro_batch_size", "gradient_accumulation_steps"))
    return steps_per_epoch(rows, micro, processes, accumulation)


def _epochs(inputs: PlanInputs) -> Choice:
    if default := needs.defaults(inputs.objective).epochs:
        return spec_or(inputs.spec.epochs, default, f"Default of {inputs.objective.value}.")
    _, why = why_by_rows(inputs.rows)
    return spec_or(inputs.spec.epochs, default_epochs(inputs.rows), why)


def choose_sequence_length(inputs: PlanInputs, choices: Choices) -> Choices:
    """The longest row's length, which is known by now."""
    length = inputs.sequence_length
    if inputs.spec.sequence_length == length:
        return choices.choose(sequence_length=Choice(length, SET_IN_THE_SPEC))
    longest = "prompt and answer" if inputs.generations else "row"
    why = f"The longest {longest}, within the model's {inputs.model.max_length}."
    return choices.choose(sequence_length=Choice(length, why))


def choose_saves(inputs: PlanInputs, choices: Choices) -> Choices:
    """How large a checkpoint is, and how often one is saved."""
    size = checkpoint_bytes(
        choices.model,
        inputs.method,
        trainable=choices.get("trainable_parameters", int),
        weight_bytes=weight_bytes(choices.get("precision", str)),
        zero_stage=choices.get("zero_stage", int),
        in_8_bits=choices.values.get("optim") in OPTIMIZERS_8_BIT,
    )
    saves = plan_saves(inputs.config.checkpoint, choices.get("total_steps", int), size, inputs.write_speed)
    values = {
        "checkpoint_seconds": saves.seconds,
        "checkpoint_every_steps": saves.every_steps,
        "checkpoint_every_minutes": saves.every_minutes,
        "checkpoint_min_seconds": saves.min_seconds,
    }
    fields = {name: Choice(value, saves.reasons.get(to_camel(name))) for name, value in values.items()}
    return choices.choose(checkpoint_bytes=Choice(size), **fields).warn(*saves.warnings)


def choose_evaluations(inputs: PlanInputs, choices: Choices) -> Choices:
    """Steps between evaluations on the validation rows."""
    every, why = plan_evaluations(
        inputs.summary.validation_rows, choices.get("total_steps", int), generates=bool(inputs.generations)
    )
    choices = choices.choose(evaluation_every_steps=Choice(every, why))
    return choices.choose(checkpoint_select=_select(inputs, every))


def _select(inputs: PlanInputs, every: int | None) -> Choice:
    """Which checkpoint is exported.

    Args:
        inputs: the run.
        every: steps between evaluations; None: there are none.

    Raises:
        BadInput: the spec asks for what only evaluations can tell.
    """
    select = inputs.config.checkpoint.select
    if every is not None:
        return spec_or(select, Select.BEST, "Lowest loss on the validation rows.")
    requested = {
        "spec.checkpoint.select": select is Select.BEST and "cannot be Best",
        "spec.evaluation.earlyStopping": inputs.config.evaluation.early_stopping and "has no effect",
    }
    for field, problem in requested.items():
        if problem:
            raise BadInput(
                field,
                f"{problem}: no loss on validation rows is computed while this run trains",
                "Remove it, or provide validation rows by spec.dataset.validation; objectives whose models write what "
                "they learn from compute none.",
            )
    return spec_or(select, Select.LAST, "Nothing is evaluated during training.")


def _default_rate(inputs: PlanInputs, choices: Choices) -> tuple[float, str]:
    """The learning rate where the spec has none, and why."""
    model, method = choices.model, inputs.method
    default = needs.defaults(inputs.objective).learning_rate[method]
    if method.adapts and model.hidden_size < _ADAPTER_RATE_FROM:
        factor = min(_ADAPTER_RATE_FACTOR, (_ADAPTER_RATE_FROM / model.hidden_size) ** _ADAPTER_RATE_POWER)
        return _rounded(default * factor), (
            f"{default:g} from a hidden size of {_ADAPTER_RATE_FROM:,}; below, more for adapters of narrower models."
        )
    if not method.adapts and model.parameters > _FULL_RATE_UP_TO:
        # Larger models have smaller weights, which a step of AdamW changes by the rate whatever the gradient.
        return _rounded(default * math.sqrt(_FULL_RATE_UP_TO / model.parameters)), (
            f"{default:g} up to {_FULL_RATE_UP_TO / 1e9:g} billion parameters; above, less by the square root of the "
            "size."
        )
    return default, f"Default of {inputs.objective.value} with {method.value}."


def _rounded(rate: float) -> float:
    """With one significant digit."""
    return float(f"{rate:.1g}")


def choose_rates(inputs: PlanInputs, choices: Choices) -> Choices:
    """The learning rate and its course, and what keeps weights and gradients small."""
    spec, defaults = inputs.spec, needs.defaults(inputs.objective)
    why = f"Default of {inputs.objective.value}."
    return choices.choose(
        learning_rate=spec_or(spec.learning_rate, *_default_rate(inputs, choices)),
        scheduler=spec_or(spec.scheduler, defaults.scheduler, why),
        warmup_ratio=spec_or(spec.warmup_ratio, defaults.warmup_ratio, why),
        weight_decay=spec_or(spec.weight_decay, 0.0, "Default."),
        max_grad_norm=spec_or(spec.max_grad_norm, 1.0, "Default."),
    )
