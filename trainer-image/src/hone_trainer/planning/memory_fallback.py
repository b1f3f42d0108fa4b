"""The memory fallback: what a run changes after it ran out of memory, one level further each time.

    0      the plan itself
    1 …    micro-batch ÷ 2 (its largest divisor of at most half), accumulation up in proportion, until it is 1, or what
           the objective needs at least; where micro-batches are cut by tokens, these too
    then   gradient checkpointing
    then   activations wait in host memory (GPUs only)
    then   the next ZeRO stage (several ranks, unless the spec names a stage, and only before the first checkpoint;
           not 3 where a server generates answers, which needs the adapter whole)
    then   ZeRO-3 with optimizer state, then also the weights, in host memory (Full on GPUs, where the pod has room)

Every level trains on the same rows per optimizer step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from hone.contract.base import Model
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.plan import Plan
from hone.contract.runconfig import HOST_MEMORY_BASE, HOST_MEMORY_PER_GPU, Attempt, RunConfig, Topology
from hone.contract.settings import GenerationEngine, Optimizer
from hone_trainer.planning.needs import least_micro_batch
from hone_trainer.protocol.errors import clip
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.runconfig import digest_of

LEVEL_FILE = "memory-rung.json"
MAX_CHANGES = 8
MAX_CHANGE = 256
"""Characters of a sentence; the contract takes no longer one."""


@dataclass(frozen=True)
class Level:
    """A plan, and how it differs from that of the level before; not at all at level 0."""

    plan: Plan
    change: str = ""


class ReachedLevel(Model):
    """The content of `<run>/LEVEL_FILE`: the level that a pod has reached in place, for the attempts after it."""

    run_config: str = ""
    """Digest of the RunConfig of that pod."""
    level: Annotated[int, Field(alias="rung")] = 0
    changes: list[str] = []
    """A sentence for each level from 1 on, with its cause."""


_OFFLOADED_BYTES = {"offload_optimizer": 20, "offload_param": 2}
"""Most bytes of host memory for each trained parameter, or for each one: `memory_terms.host_bytes`."""

Change = dict[str, int | bool | str]
"""New values by the plan's field names."""


def fallback_levels(plan: Plan, topology: Topology) -> list[Level]:
    """All levels, the plan itself first. The same plan and topology give the same ones in every attempt."""
    levels = [Level(plan)]
    changes = (
        *_smaller_micro_batches(plan),
        *_frugal_activations(plan, topology),
        *_next_stages(plan, topology),
        *_offloaded_states(plan, topology),
    )
    for change in changes:
        last = levels[-1].plan
        sentences = [_sentence(name, getattr(last, name), value) for name, value in change.items()]
        levels.append(Level(last.model_copy(update=_typed(change)), ", ".join(sentences)))
    return levels


def _typed(change: Change) -> dict[str, object]:
    """The change as the plan holds it: a copy of a model does not validate."""
    return {name: Optimizer(str(value)) if name == "optim" else value for name, value in change.items()}


def _smaller_micro_batches(plan: Plan) -> Iterator[Change]:
    micro, accumulation, tokens = plan.micro_batch_size, plan.gradient_accumulation_steps, plan.micro_batch_tokens
    least = least_micro_batch(Objective(plan.objective))
    while (smaller := _largest_part(micro)) >= least:
        tokens = tokens and tokens * smaller // micro
        micro, accumulation = smaller, accumulation * (micro // smaller)
        change: Change = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
        yield change | ({"micro_batch_tokens": tokens} if tokens else {})


def _frugal_activations(plan: Plan, topology: Topology) -> Iterator[Change]:
    if not plan.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if topology.gpus_per_node > 0 and not plan.activation_offloading:
        yield {"activation_offloading": True}


def _next_stages(plan: Plan, topology: Topology) -> Iterator[Change]:
    if plan.world_size == 1 or topology.zero_stage is not None:
        return
    method, precision, in_8_bits = MethodType(plan.method), plan.precision, _in_8_bits(plan)
    served = plan.generation_engine is GenerationEngine.VLLM
    for stage in method.facts.zero_stages:
        if stage > plan.zero_stage and not (served and stage == 3):
            change: Change = {"zero_stage": stage}
            stage_precision = planned_precision(method, stage, plan.half, on_gpu=topology.gpus_per_node > 0)
            if stage_precision != precision:
                change["precision"] = precision = stage_precision
            if in_8_bits:
                change["optim"], in_8_bits = Optimizer.ADAMW.value, False
            yield change


def _offloaded_states(plan: Plan, topology: Topology) -> Iterator[Change]:
    if topology.gpus_per_node == 0 or MethodType(plan.method).adapts or topology.zero_stage not in (None, 3):
        return
    room = (topology.host_memory_bytes or HOST_MEMORY_PER_GPU) - HOST_MEMORY_BASE
    room = max(room, (plan.host_memory_bytes or 0) // topology.processes_per_node - HOST_MEMORY_BASE)
    optimizer, param = (
        count * _OFFLOADED_BYTES[name] // plan.world_size
        for name, count in (("offload_optimizer", plan.trainable_parameters), ("offload_param", plan.parameters))
    )
    if not plan.offload_optimizer and topology.offload_optimizer is not False and optimizer <= room:
        change: Change = {"offload_optimizer": True}
        if plan.world_size == 1 and plan.zero_stage != 3:
            change = {"zero_stage": 3, "precision": plan.half, **change}
            # ZeRO is tried with moments of 32 bits alone.
            change |= {"optim": Optimizer.ADAMW.value} if _in_8_bits(plan) else {}
        yield change
    if not plan.offload_param and topology.offload_param is not False and optimizer + param <= room:
        yield {"offload_param": True}


def _in_8_bits(plan: Plan) -> bool:
    return plan.optim is not None and plan.optim.in_8_bits


def _largest_part(micro: int) -> int:
    """The largest divisor of at most half; 0 of 1."""
    return next((size for size in range(micro // 2, 0, -1) if micro % size == 0), 0)


def planned_precision(method: MethodType, zero_stage: int, half: str, *, on_gpu: bool) -> str:
    """Type of the weights: Full alone keeps fp32, since 16 bits swallow small updates; ZeRO has an fp32 copy.

    Args:
        method: which weights are trained.
        zero_stage: how they are sharded.
        half: the type in which GPUs compute.
        on_gpu: whether the ranks run on GPUs.
    """
    return half if on_gpu and (method.adapts or zero_stage) else "float32"


def why_precision(precision: str, half: str, *, on_gpu: bool) -> str:
    """The reason for it, in words."""
    if not on_gpu:
        return "CPU."
    if precision == "float32":
        return f"Full without ZeRO: {half} would lose small updates; compute is autocast."
    return "Half the memory."


def level_of(levels: list[Level], attempt: Attempt, reached: ReachedLevel, checkpoint_stage: int | None) -> int:
    """The level that an attempt runs at.

    Args:
        levels: all of them.
        attempt: what the operator counted.
        reached: the level that earlier attempts have reached in place.
        checkpoint_stage: ZeRO stage of the newest checkpoint, which the run keeps; None before the first one.
    """
    level = min(max(attempt.memory_fallback_level, reached.level), len(levels) - 1)
    fitting = [
        index for index, one in enumerate(levels) if checkpoint_stage is None or one.plan.zero_stage == checkpoint_stage
    ]
    return min(max(level, fitting[0]), fitting[-1]) if fitting else level


def next_level(
    levels: list[Level],
    level: int,
    checkpoint_stage: int | None,
    *,
    loading: bool = False,
    memory: int | None = None,
) -> int | None:
    """The level that is taken after running out of memory, or None where none is left.

    Args:
        levels: all of them.
        level: the one where memory ran out.
        checkpoint_stage: as in `level_of`.
        loading: whether it ran out before training began. Then only a ZeRO stage can help, which shards what is loaded,
            or host memory.
        memory: bytes of a GPU, if the plan was made without knowing them: levels that cannot fit by its estimate are
            left out, as long as there are others.
    """
    possible = [
        index
        for index in range(level + 1, len(levels))
        if not (loading and _states(levels[index]) == _states(levels[level]))
    ]
    fitting = [index for index in possible if memory is None or not _exceeds(levels[0], levels[index], memory)]
    following = next(iter(fitting or possible), None)
    if following is None:
        return None
    if checkpoint_stage is not None and levels[following].plan.zero_stage != checkpoint_stage:
        return None
    return following


def _exceeds(first: Level, level: Level, memory: int) -> bool:
    """Whether a level needs more than that, by the first one's estimate: as long as it holds the same state, and of
    activations what only its micro-batch reduces."""
    if _states(level) != _states(first):
        return False
    estimate = first.plan.memory
    state = estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes
    frugal = level.plan.gradient_checkpointing != first.plan.gradient_checkpointing or level.plan.activation_offloading
    rows = 0.0 if frugal else level.plan.micro_batch_size / first.plan.micro_batch_size
    return state + rows * estimate.activations_bytes > memory


def _states(level: Level) -> tuple[int, bool, bool]:
    plan = level.plan
    return plan.zero_stage, bool(plan.offload_optimizer), bool(plan.offload_param)


def plan_of_attempt(plan: Plan, topology: Topology, attempt: Attempt) -> Plan:
    """The plan as this attempt carries it out: its level of the memory fallback, and its share of the learning rate."""
    levels = fallback_levels(plan, topology)
    adjusted = levels[min(attempt.memory_fallback_level, len(levels) - 1)].plan
    return adjusted.model_copy(update={"learning_rate": plan.learning_rate * attempt.learning_rate_factor})


def changes_of_attempt(plan: Plan, levels: list[Level], attempt: Attempt, reached: ReachedLevel) -> list[str]:
    """How the attempt differs from the plan, in sentences; the last `MAX_CHANGES` of them.

    Args:
        plan: as prepare made it.
        levels: its levels.
        attempt: with the level that it really runs at.
        reached: the causes that are known.
    """
    changes = causes(levels, attempt.memory_fallback_level, reached)
    if attempt.learning_rate_factor != 1:
        rate = plan.learning_rate
        changes.append(f"learningRate {rate:g} → {rate * attempt.learning_rate_factor:g}: an earlier attempt diverged")
    return [clip(sentence, MAX_CHANGE) for sentence in changes[-MAX_CHANGES:]]


def causes(levels: list[Level], level: int, reached: ReachedLevel) -> list[str]:
    """A sentence for each level from 1 to `level`."""
    return [
        reached.changes[index - 1]
        if index <= len(reached.changes)
        else f"{levels[index].change}: out of memory in an earlier attempt"
        for index in range(1, level + 1)
    ]


def hint_at_the_end(plan: Plan, last: Plan, *, loading: bool) -> str:
    """What can still be done where no level is left.

    Args:
        plan: as prepare made it, with its estimate.
        last: as it was carried out at the last level.
        loading: whether memory ran out before training began.
    """
    memory = plan.memory
    states = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes
    row = memory.activations_bytes // plan.micro_batch_size
    limit = f"; a process has {_gib(memory.limit_bytes)}" if memory.limit_bytes else ""
    remedies = [] if loading else [f"spec.hyperparameters.sequenceLength below {plan.sequence_length}"]
    method = MethodType(plan.method)
    if method.facts.lighter:
        remedies.append(f"spec.method.type {' or '.join(method.facts.lighter)}")
    last_stage = method.facts.zero_stages[-1]
    if not method.adapts and plan.world_size > 1 and last.zero_stage != last_stage:
        remedies.append(f"spec.compute.zeroStage {last_stage}")
    remedies.append("more memory per process, or a smaller model")
    spared = (
        "The model did not fit before training began"
        if loading
        else f"No memory is left to save: microBatchSize is {last.micro_batch_size} and gradient checkpointing is on"
    )
    return (
        f"{spared}. By estimate, weights, gradients and optimizer take {_gib(states)}, and the activations of one "
        f"row {_gib(row)} without checkpointing{limit}. In a new run, use {'; or '.join(remedies)}."
    )


def load_level(config: RunConfig) -> ReachedLevel:
    """What earlier attempts of this very RunConfig remember; nothing where there is no such file that can be read."""
    try:
        reached = ReachedLevel.model_validate_json((Path(config.paths.run) / LEVEL_FILE).read_text())
    except (OSError, ValidationError):
        return ReachedLevel()
    return reached if reached.run_config == digest_of(config) else ReachedLevel()


def save_level(config: RunConfig, level: int, changes: list[str]) -> ReachedLevel:
    """Remember it for the attempts to come."""
    reached = ReachedLevel(run_config=digest_of(config), level=level, changes=changes)
    write_atomic(Path(config.paths.run) / LEVEL_FILE, reached.to_json().encode(), durable=True)
    return reached


def _sentence(name: str, was: object, now: object) -> str:
    words = name.split("_")
    field = words[0] + "".join(word.title() for word in words[1:])
    return f"{field} on" if now is True else f"{field} {was} → {now}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
