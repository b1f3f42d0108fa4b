"""The rows of an optimizer step: whether they suffice, how many there are, and whether they are packed."""

from dataclasses import replace

from hone.contract.settings import OnScarceData
from hone_trainer.planning import needs
from hone_trainer.planning.batches import FORWARD_TOKENS, MIN_STEPS, global_batch_size
from hone_trainer.planning.choices.base import Choice, Choices, spec_or
from hone_trainer.planning.choices.placement import choose_placement, is_tight
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import Packing, packed_rows_per_step
from hone_trainer.planning.rollouts import LONGEST, completion_length
from hone_trainer.protocol.errors import BadInput

_WITH_LITTLE_DATA = (
    "What may still work: a format or a tone, learned by LoRA of a low rank; examples in the prompt, without training; "
    "and for facts, above all those that change, to find them and put them into the prompt."
)


def check_scarce_data(inputs: PlanInputs, choices: Choices) -> Choices:
    """Refuse fewer training rows than `minSamples`, or warn of them, as the spec says.

    Raises:
        BadInput: there are fewer, and `onScarceData` is Fail.
    """
    data, rows = inputs.config.data, inputs.rows
    if rows >= data.min_samples:
        return choices
    message = (
        f"{rows} training rows are left after validation and test are held out, but minSamples is {data.min_samples}"
    )
    if data.on_scarce_data is OnScarceData.FAIL:
        raise BadInput(
            "spec.dataset.minSamples",
            message,
            "Add rows, lower spec.dataset.minSamples, or set spec.dataset.onScarceData to Warn.",
        )
    return choices.warn(f"Little data: {message}. The result may not generalize to other data. {_WITH_LITTLE_DATA}")


def choose_generation(inputs: PlanInputs, choices: Choices) -> Choices:
    """How many answers the model generates to a prompt, how long, and how freely drawn; none where rows have them.

    Raises:
        BadInput: the longest answer leaves no room for a prompt.
    """
    spec, count = inputs.spec, inputs.generations
    if not count:
        return choices
    length = completion_length(inputs.config, inputs.model.max_length)
    why = f"At most {LONGEST}, and half of the limit of prompt and answer."
    if count > 1:
        default = f"Default of {inputs.objective.value}."
        choices = choices.choose(generations=spec_or(spec.generations, count, default))
    return choices.choose(
        max_completion_length=spec_or(spec.max_completion_length, length, why),
        temperature=spec_or(spec.temperature, 1.0, "Default: as the model itself."),
    )


def choose_batch(inputs: PlanInputs, choices: Choices) -> Choices:
    """Rows, or answers, of an optimizer step.

    Raises:
        BadInput: what the spec requests cannot be divided.
    """
    size = global_batch_size(inputs.config, inputs.rows, inputs.tokens_per_row)
    processes, group = inputs.topology.data_parallel_size, inputs.generations
    default = needs.defaults(inputs.objective).global_batch_size
    usual = global_batch_size(inputs.config)
    why = "Default." if size == default else f"Nearest to {default} for {processes} processes."
    if size > usual:
        why = _why_filled(inputs, size, usual)
    if group:
        why = f"{why} Answers: {group} to each of {size // group} prompts."
    choices = choices.choose(global_batch_size=spec_or(inputs.spec.global_batch_size, size, why))
    return replace(choices, rows_per_process=size // processes)


def _why_filled(inputs: PlanInputs, size: int, usual: int) -> str:
    """The reason of a batch that fills GPUs: what a row is to each of them, and what limits it."""
    processes, sequences = inputs.topology.data_parallel_size, needs.sequences_per_row(inputs.objective)
    rows = "answers" if inputs.generations else "rows"
    of_each = (
        ", prompts with them" if inputs.generations else f", {sequences} sequences of each" if sequences > 1 else ""
    )
    largest = needs.defaults(inputs.objective).largest_batch_size
    limits = f"{FORWARD_TOKENS} tokens" + (f" and {largest} {rows}" if largest else "")
    return (
        f"About {size // processes * inputs.tokens_per_row:.0f} tokens a step on each of {processes} GPUs, instead of "
        f"{usual} {rows} in all{of_each}: at most {limits}, and at least {MIN_STEPS} optimizer steps."
    )


def choose_packing(inputs: PlanInputs, choices: Choices) -> Choices:
    """Packed rows where they are proposed, unless they need memory that padded ones do not.

    Raises:
        BadInput: the model cannot fit with packed rows.
    """
    if not inputs.packing.length:
        return _without_packing(choices, inputs.packing.why)
    packed = _with_packing(inputs, choices)
    if inputs.spec.packing is not None or not is_tight(inputs, choose_placement(inputs, packed)):
        return packed
    padded = _without_packing(choices, "Padding needs less memory.")
    return packed if is_tight(inputs, choose_placement(inputs, padded)) else padded


def _without_packing(choices: Choices, why: str) -> Choices:
    return replace(choices.choose(packing=Choice(False, why)), packing=Packing(why))


def _with_packing(inputs: PlanInputs, choices: Choices) -> Choices:
    packing, processes = inputs.packing, inputs.topology.data_parallel_size
    share, held = packed_rows_per_step(choices.rows_per_process, inputs.rows, packing.rows), inputs.rows / packing.rows
    choices = choices.choose(
        packed_sequence_length=Choice(
            packing.length, f"{held:.1f} rows in each, {held * share * processes:.0f} a step."
        ),
        packing=Choice(True, packing.why),
    )
    return replace(choices, rows_per_process=share, packing=packing)


def choose_beta(inputs: PlanInputs, choices: Choices) -> Choices:
    """The weight of the loss's own term, where the objective has one."""
    default = needs.defaults(inputs.objective).beta
    if default is None:
        return choices
    choice = spec_or(inputs.spec.beta, default, f"Default of {inputs.objective.value}.")
    if inputs.holds_reference:
        choice = replace(choice, reason=f"{choice.reason} Holds a second copy of the model as reference.")
    return choices.choose(beta=choice)
