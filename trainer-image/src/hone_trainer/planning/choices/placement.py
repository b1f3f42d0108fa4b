"""How a step is laid out on the processes: ZeRO stage, gradient checkpointing, micro-batch; and whether it is tried."""

from dataclasses import dataclass, replace
from itertools import product

from hone.contract.plan import MemoryEstimate
from hone.contract.settings import Precision
from hone_trainer.data.length_groups import passes_and_work
from hone_trainer.models.saved import Mode
from hone_trainer.models.zero import sums_in_float32
from hone_trainer.planning import needs
from hone_trainer.planning.batches import MOST_TOKENS, least_tokens, micro_batches
from hone_trainer.planning.choices.base import Choice, Choices, spec_or
from hone_trainer.planning.choices.model import unsupported_methods
from hone_trainer.planning.choices.states import (
    States,
    choose_states,
    host_holds,
    pod_host_bytes,
    states_to_try,
    why_stage,
)
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.memory import estimate_memory, states_bytes
from hone_trainer.planning.memory_fallback import planned_precision, why_precision
from hone_trainer.planning.memory_terms import TrainingStep, host_bytes
from hone_trainer.planning.packing import most_tokens
from hone_trainer.planning.rollouts import generated_at_once
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB, gib

PROBE_FROM = 0.6
"""Share of a process's memory from which on two steps are tried out first; on GPUs they always are."""
ASSUMED_GPU = 80 * GIB
"""What a GPU of unknown memory is planned to have: the usual size in data centers. What it really has the probe finds
out before training."""
LARGEST_GPU = 288 * GIB
"""The largest that is sold."""


_ROWS_TRIED = 2000
"""Training rows, which are shuffled, that are cut into micro-batches of each size."""


@dataclass(frozen=True)
class _Layout:
    """One way to lay out a step, and what that takes."""

    states: States
    gradient_checkpointing: bool
    micro_batch_size: int
    precision: str
    memory: MemoryEstimate
    host_bytes: int
    lacking_host_bytes: int | None = None
    """Host memory with which another layout would fit, if the spec limits it to less."""


@dataclass(frozen=True)
class _Why:
    """Reasons of a layout."""

    zero_stage: str
    gradient_checkpointing: str
    micro_batch_size: str


def choose_placement(inputs: PlanInputs, choices: Choices) -> Choices:
    """Where the training state is, gradient checkpointing and micro-batch: the first that fits, the fastest first.

    Raises:
        BadInput: the requested micro-batch does not divide the batch, or the model cannot fit, or what the spec
            offloads does not fit into host memory.
    """
    topology = inputs.topology
    layout, why = (_by_rule if _limit(inputs) is None else _by_estimate)(inputs, choices)
    choices = choices.choose(
        zero_stage=Choice(layout.states.zero_stage, why.zero_stage),
        gradient_checkpointing=Choice(layout.gradient_checkpointing, why.gradient_checkpointing),
        micro_batch_size=spec_or(topology.micro_batch_size, layout.micro_batch_size, why.micro_batch_size),
        precision=Choice(layout.precision, why_precision(layout.precision, _half(choices), on_gpu=inputs.on_gpu)),
        activation_offloading=Choice(False, "Only after running out of memory."),
        memory=Choice(layout.memory, _whose_memory(inputs)),
    )
    choices = choose_states(inputs, choices, layout.states, layout.host_bytes)
    if inputs.on_gpu and topology.memory_bytes is None:
        return choices.warn(_unknown(inputs, choices, layout))
    return choices if _fits(layout.memory, _limit(inputs)) else choices.warn(_shortage(inputs, choices, layout))


def _limit(inputs: PlanInputs) -> int | None:
    """Bytes that a process is planned to have; None on CPUs of unknown memory."""
    return inputs.topology.memory_bytes or (ASSUMED_GPU if inputs.on_gpu else None)


def _whose_memory(inputs: PlanInputs) -> str | None:
    """Whose memory the estimate is compared with, where the spec does not say it."""
    memory, gpu = inputs.topology.memory_bytes, inputs.topology.gpu_by_labels
    return f"Each GPU has {gib(memory)}: {gpu}." if memory and gpu else None


def _unknown(inputs: PlanInputs, choices: Choices, layout: _Layout) -> str:
    """A warning that the memory of a GPU is unknown.

    Raises:
        BadInput: no GPU has as much as is needed.
    """
    memory = layout.memory
    if states_bytes(memory) > LARGEST_GPU:
        raise BadInput(
            "spec.compute",
            f"the model of {choices.model.parameters:,} parameters is too large: each process needs about "
            f"{gib(memory.total_bytes)}, and the largest GPU has {gib(LARGEST_GPU)}",
            f"Use {_either(_remedies(inputs, layout, LARGEST_GPU))}.",
        )
    needed = "" if _fits(memory, ASSUMED_GPU) else f", though it needs about {gib(memory.total_bytes)} on each"
    return (
        f"Whether the model fits is unknown, and it is planned for GPUs of {gib(ASSUMED_GPU)}{needed}: set "
        "spec.compute.gpuMemory to have this checked before training; no label of the nodes shows it."
    )


def _by_rule(inputs: PlanInputs, choices: Choices) -> tuple[_Layout, _Why]:
    """A layout on CPUs of unknown memory: the fastest."""
    (states, *_), why = states_to_try(inputs)
    sizes, most = _micro_batches(inputs, choices)
    layout = _layout(inputs, choices, states, sizes[0], checkpointing=False)
    return layout, _Why(why, "Memory is unknown.", f"At most {most} tokens at once.")


def _by_estimate(inputs: PlanInputs, choices: Choices) -> tuple[_Layout, _Why]:
    """The first layout whose estimate is within the known memory, of GPU and host, else the last for the host."""
    ways, why = states_to_try(inputs)
    sizes, most = _micro_batches(inputs, choices)
    last, fits, lacking = None, False, None
    for states, (checkpointing, size) in product(ways, _by_speed(inputs, choices, sizes)):
        layout = _layout(inputs, choices, states, size, checkpointing=checkpointing)
        if last is None or host_holds(inputs, layout.host_bytes):
            last, fits = layout, _fits(layout.memory, _limit(inputs))
            if fits:
                break
        elif lacking is None and _fits(layout.memory, _limit(inputs)):
            lacking = layout.host_bytes
    if last is None:
        raise ValueError("there is no way to hold the training state")
    return replace(last, lacking_host_bytes=lacking), _Why(
        why_stage(inputs, last.states, ways[0], why),
        "Needed to fit." if last.gradient_checkpointing else "Fits without it.",
        f"The largest of at most {most} tokens that fits." if fits else "The smallest.",
    )


def _by_speed(inputs: PlanInputs, choices: Choices, sizes: list[int]) -> list[tuple[bool, int]]:
    """Gradient checkpointing and micro-batches, the fastest first: to compute activations again takes a third more
    time, and a micro-batch that does not fill a GPU several times as much."""
    tokens = {size: _tokens_at_once(inputs, choices, size) for size in sizes}
    enough = min(least_tokens(inputs.config), tokens[sizes[0]])
    return sorted(product((False, True), sizes), key=lambda pair: (tokens[pair[1]] < enough, pair[0], -pair[1]))


def _tokens_at_once(inputs: PlanInputs, choices: Choices, size: int) -> float:
    """Tokens of a forward pass on average, without padding."""
    per_row = tokens_per_row(inputs, choices)
    if not divides_by_tokens(inputs, choices):
        return size * per_row
    share, processes = choices.rows_per_process, inputs.topology.data_parallel_size
    tried = inputs.lengths[: max(_ROWS_TRIED, share * processes)]
    passes, _ = passes_and_work(tried, share * processes, size * inputs.sequence_length, processes)
    return share * per_row / passes if passes else size * per_row


def divides_by_tokens(inputs: PlanInputs, choices: Choices) -> bool:
    """Whether a micro-batch may have as many rows as fit into the memory of so many of the longest: their order is
    free, their lengths are known, they are not packed, and the spec says nothing else. On GPUs alone: on CPUs, which
    compute few tokens as fast as many, padding takes longer than more passes."""
    free = inputs.on_gpu and not (choices.packing.length or needs.fixed_order(inputs.objective))
    return bool(free and inputs.lengths and inputs.topology.micro_batch_size is None)


def tokens_per_row(inputs: PlanInputs, choices: Choices) -> float:
    """Tokens of a row, or packed row, on average in a forward pass."""
    if (rows := choices.packing.rows) and inputs.summary.tokens:
        return inputs.summary.tokens / rows
    return inputs.tokens_per_row or inputs.sequence_length


def _micro_batches(inputs: PlanInputs, choices: Choices) -> tuple[list[int], int]:
    """The micro-batches to try, largest first, and how many tokens they have at most, unless the smallest has more."""
    least = needs.least_micro_batch(inputs.objective)
    sizes = micro_batches(inputs.topology.micro_batch_size, choices.rows_per_process, least)
    packed = choices.packing.length
    most = most_tokens(inputs.config, choices.model) if packed else MOST_TOKENS
    length = packed or inputs.sequence_length
    return [size for size in sizes if size * length <= most] or sizes[-1:], most


def _shape(inputs: PlanInputs, choices: Choices, size: int) -> tuple[int, int]:
    """Rows of the largest micro-batch of so many, and the tokens of each. Packed ones go through the model as one row;
    a longer one goes alone."""
    if length := choices.packing.length:
        return 1, max(size * length, inputs.sequence_length)
    return size * needs.sequences_per_row(inputs.objective), inputs.sequence_length


def _layout(inputs: PlanInputs, choices: Choices, states: States, size: int, *, checkpointing: bool) -> _Layout:
    stage = states.zero_stage
    model, on_gpu = choices.model, inputs.on_gpu
    precision = planned_precision(inputs.method, stage, _half(choices), on_gpu=on_gpu)
    sequences, length = _shape(inputs, choices, size)
    step = TrainingStep(
        model=model,
        lora=choices.lora,
        trainable=choices.get("trainable_parameters", int),
        weight_bytes=weight_bytes(precision),
        quantized=inputs.method.facts.quantized,
        on_gpu=on_gpu,
        world_size=inputs.topology.world_size,
        zero_stage=stage,
        micro_batch_size=sequences,
        accumulates=size < choices.rows_per_process,
        sums_in_float32=sums_in_float32(precision, stage, choices.rows_per_process // size),
        sequence_length=length,
        gradient_checkpointing=checkpointing,
        limit_bytes=inputs.topology.memory_bytes,
        materializes_logits=needs.materializes_logits(inputs.objective),
        generated_at_once=generated_at_once(inputs.config, choices.rows_per_process, size),
        reward_parameters=inputs.reward_parameters,
        reference_parameters=model.parameters if inputs.holds_reference else 0,
        teacher_parameters=inputs.teacher_parameters,
        optim=states.optim,
        offload_optimizer=states.offload_optimizer,
        offload_param=states.offload_param,
    )
    step = _measured(inputs, choices, step, precision)
    return _Layout(states, checkpointing, size, precision, estimate_memory(step), host_bytes(step))


def _half(choices: Choices) -> str:
    """The type in which GPUs compute."""
    return str(choices.values.get("compute_dtype") or Precision.BFLOAT16)


def _measured(inputs: PlanInputs, choices: Choices, step: TrainingStep, precision: str) -> TrainingStep:
    """The step with what autograd saves of this very model, unless ten times as much would fit: then formulas do."""
    estimate = estimate_memory(step)
    limit = estimate.limit_bytes
    if not (limit or inputs.on_gpu) or (limit and estimate.total_bytes + 9 * estimate.activations_bytes <= limit):
        return step
    masked = step.micro_batch_size > 1 or choices.packing.length is not None
    # Measured without a GPU, where float16 lacks kernels; its values have as many bytes.
    measured = Precision.BFLOAT16.value if precision == Precision.FLOAT16 else precision
    mode = Mode.of(choices.lora, measured, autocast=step.autocast, masked=masked)
    return replace(step, saved=inputs.measure(mode))


def weight_bytes(precision: str) -> int:
    """Bytes of one weight."""
    return 4 if precision == "float32" else 2


def _fits(memory: MemoryEstimate, limit: int | None) -> bool:
    return limit is None or memory.total_bytes <= limit


def is_tight(inputs: PlanInputs, choices: Choices) -> bool:
    """Whether a known limit is exceeded, or made it slower: by host memory, or on CPUs by gradient checkpointing. A GPU
    loses more by short micro-batches."""
    memory = choices.get("memory", MemoryEstimate)
    slower = choices.get("gradient_checkpointing", bool) and memory.limit_bytes is not None and not inputs.on_gpu
    return not _fits(memory, _limit(inputs)) or slower or bool(choices.values["host_memory_bytes"])


def _shortage(inputs: PlanInputs, choices: Choices, layout: _Layout) -> str:
    """A warning that the layout may run out of memory.

    Raises:
        BadInput: it cannot fit, whatever the batch.
    """
    memory, limit = layout.memory, layout.memory.limit_bytes or 0
    gpu = inputs.topology.gpu_by_labels
    figures = (
        f"each process needs about {gib(memory.total_bytes)}, but has {gib(limit)}{f', on {gpu}' if gpu else ''} "
        f"(weights {gib(memory.weights_bytes)}, gradients {gib(memory.gradients_bytes)}, "
        f"optimizer {gib(memory.optimizer_bytes)}, activations {gib(memory.activations_bytes)})"
    )
    remedies = _remedies(inputs, layout, limit)
    if (largest := inputs.topology.largest_memory_bytes) and memory.total_bytes <= largest:
        remedies.insert(0, f"spec.compute.pod.nodeSelector for nodes with GPUs of {gib(largest)}")
    if lacking := layout.lacking_host_bytes:
        host = gib(pod_host_bytes(inputs, lacking))
        remedies.insert(0, f"spec.compute.resources.limits.memory of {host}, to keep optimizer state in host memory")
    hint = f"Use {_either(remedies)}."
    if states_bytes(memory) > (inputs.topology.largest_memory_bytes or limit):
        message = f"the model of {choices.model.parameters:,} parameters is too large: {figures}"
        raise BadInput("spec.compute", message, hint)
    return f"Training may run out of memory: {figures}. {hint}"


def _either(remedies: list[str]) -> str:
    return f"{', '.join(remedies[:-1])} or {remedies[-1]}"


def _remedies(inputs: PlanInputs, layout: _Layout, limit: int) -> list[str]:
    method, remedies = inputs.method, ["more memory per process", "a smaller model"]
    if lighter := [other for other in method.facts.lighter if other not in unsupported_methods(inputs.model)]:
        remedies.insert(0, f"spec.method.type {' or '.join(lighter)}")
    if not method.adapts and (layout.states.zero_stage == 0 or layout.memory.optimizer_bytes > limit // 2):
        remedies.append("more processes with zeroStage 3")
    if layout.memory.activations_bytes > limit // 4:
        remedies.append("a smaller spec.hyperparameters.sequenceLength")
    return remedies


def choose_probe(inputs: PlanInputs, choices: Choices) -> Choices:
    """Whether to try two steps first. They cost a start of the ranks, and save a run that fails hours later."""
    memory = choices.get("memory", MemoryEstimate)
    if inputs.on_gpu:
        return choices.choose(probe=Choice(True, "Always on GPUs."))
    if not memory.limit_bytes:
        return choices.choose(probe=Choice(False, "No memory limit is known."))
    share = memory.total_bytes / memory.limit_bytes
    return choices.choose(probe=Choice(share > PROBE_FROM, f"The estimate is {share:.0%} of a process's memory."))
