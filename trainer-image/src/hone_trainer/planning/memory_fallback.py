"""The ladder for memory: what a run does otherwise after it ran out of memory, one rung further down each time.

    0      the plan itself
    1 …    micro-batch ÷ 2 (its largest divisor of at most half), accumulation up in proportion, until it is 1, or what
           the objective needs at least
    then   gradient checkpointing
    then   activations wait in host memory (GPUs only)
    then   the next ZeRO stage (several ranks, unless the spec names a stage, and only before the first checkpoint)

Every rung trains on the same rows per optimizer step.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hone.contract.base import Model
from hone.contract.objectives import OBJECTIVES, ZERO_STAGES
from hone.contract.plan import Plan
from hone.contract.runconfig import Attempt, RunConfig, Topology
from hone.contract.settings import MethodType, Objective
from hone_trainer.protocol.errors import clip
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.runconfig import digest_of

RUNG_FILE = "memory-rung.json"
MAX_CHANGES = 8
MAX_CHANGE = 256
"""Characters of a sentence; the contract takes no longer one."""


@dataclass(frozen=True)
class Rung:
    """A plan, and what it does otherwise than the one a rung above; nothing at rung 0."""

    plan: Plan
    change: str = ""


class MemoryRung(Model):
    """The content of `<run>/memory-rung.json`: how far down a pod has come in place, for the attempts after it."""

    run_config: str = ""
    """Digest of the RunConfig it was found out with."""
    rung: int = 0
    changes: list[str] = []
    """A sentence for each rung from 1 on, with its cause."""


def rungs(plan: Plan, topology: Topology) -> list[Rung]:
    """All rungs, the plan itself first. The same plan and topology give the same ones in every attempt."""
    found = [Rung(plan)]

    def add(**changes: int | bool | str) -> None:
        now = found[-1].plan
        told = [_sentence(name, getattr(now, name), value) for name, value in changes.items()]
        found.append(Rung(now.model_copy(update=changes), ", ".join(told)))

    on_gpu = topology.gpus_per_node > 0
    least = OBJECTIVES[Objective(plan.objective)].least_micro_batch
    while (smaller := _largest_part(found[-1].plan.micro_batch_size)) >= least:
        micro = found[-1].plan.micro_batch_size
        accumulation = found[-1].plan.gradient_accumulation_steps * (micro // smaller)
        add(micro_batch_size=smaller, gradient_accumulation_steps=accumulation)
    if not plan.gradient_checkpointing:
        add(gradient_checkpointing=True)
    if on_gpu and not plan.activation_offloading:
        add(activation_offloading=True)
    if plan.world_size > 1 and topology.zero_stage is None:
        for stage in ZERO_STAGES[MethodType(plan.method)]:
            if stage > plan.zero_stage:
                precision = planned_precision(MethodType(plan.method), stage, on_gpu=on_gpu)
                kept = {} if precision == found[-1].plan.precision else {"precision": precision}
                add(zero_stage=stage, **kept)
    return found


def _largest_part(micro: int) -> int:
    """The largest divisor of at most half; 0 of 1."""
    return next((size for size in range(micro // 2, 0, -1) if micro % size == 0), 0)


def planned_precision(method: MethodType, zero_stage: int, *, on_gpu: bool) -> str:
    """Type of the weights: Full alone keeps fp32, since bf16 swallows small updates; ZeRO has an fp32 copy."""
    return "bfloat16" if on_gpu and not (method is MethodType.FULL and zero_stage == 0) else "float32"


def why_precision(precision: str, *, on_gpu: bool) -> str:
    """The reason for it, in words."""
    if not on_gpu:
        return "CPU."
    if precision == "float32":
        return "Full without ZeRO: bfloat16 would swallow small updates; compute is autocast."
    return "Half the memory."


def rung_of(found: list[Rung], attempt: Attempt, remembered: MemoryRung, checkpoint_stage: int | None) -> int:
    """The rung that an attempt stands on.

    Args:
        found: all rungs.
        attempt: what the operator counted.
        remembered: how far down earlier attempts have come in place.
        checkpoint_stage: ZeRO stage of the newest checkpoint, which the run keeps; None before the first one.
    """
    rung = min(max(attempt.memory_rung, remembered.rung), len(found) - 1)
    fitting = [
        index for index, one in enumerate(found) if checkpoint_stage is None or one.plan.zero_stage == checkpoint_stage
    ]
    return min(max(rung, fitting[0]), fitting[-1]) if fitting else rung


def next_rung(found: list[Rung], rung: int, checkpoint_stage: int | None, *, loading: bool = False) -> int | None:
    """The rung that is taken after running out of memory, or None where the ladder ends.

    Args:
        found: all rungs.
        rung: the one where memory ran out.
        checkpoint_stage: as in `rung_of`.
        loading: whether it ran out before training began. Then only a ZeRO stage can help: it shards what is loaded.
    """
    below = rung + 1
    while loading and below < len(found) and found[below].plan.zero_stage == found[rung].plan.zero_stage:
        below += 1
    if below >= len(found) or (checkpoint_stage is not None and found[below].plan.zero_stage != checkpoint_stage):
        return None
    return below


def plan_of_attempt(plan: Plan, topology: Topology, attempt: Attempt) -> Plan:
    """The plan as this attempt carries it out: its rung of the ladder, and its share of the learning rate."""
    found = rungs(plan, topology)
    adjusted = found[min(attempt.memory_rung, len(found) - 1)].plan
    return adjusted.model_copy(update={"learning_rate": plan.learning_rate * attempt.learning_rate_factor})


def changes_of_attempt(plan: Plan, found: list[Rung], attempt: Attempt, remembered: MemoryRung) -> list[str]:
    """What the attempt does otherwise than planned, in sentences; the last `MAX_CHANGES` of them.

    Args:
        plan: as prepare made it.
        found: its rungs.
        attempt: with the rung that it really stands on.
        remembered: the causes that are known.
    """
    told = causes(found, attempt.memory_rung, remembered)
    if attempt.learning_rate_factor != 1:
        rate = plan.learning_rate
        told.append(f"learningRate {rate:g} → {rate * attempt.learning_rate_factor:g}: an earlier attempt diverged")
    return [clip(sentence, MAX_CHANGE) for sentence in told[-MAX_CHANGES:]]


def causes(found: list[Rung], rung: int, remembered: MemoryRung) -> list[str]:
    """A sentence for each rung from 1 to `rung`."""
    return [
        remembered.changes[index - 1]
        if index <= len(remembered.changes)
        else f"{found[index].change}: out of memory in an earlier attempt"
        for index in range(1, rung + 1)
    ]


def hint_at_the_end(plan: Plan, last: Plan, *, loading: bool) -> str:
    """What can still be done where the ladder has ended.

    Args:
        plan: as prepare made it, with its estimate.
        last: as it was carried out on the last rung.
        loading: whether memory ran out before training began.
    """
    memory = plan.memory
    states = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes
    row = memory.activations_bytes // plan.micro_batch_size
    limit = f", of {_gib(memory.limit_bytes)} that a process has" if memory.limit_bytes else ""
    remedies = [] if loading else [f"spec.hyperparameters.sequenceLength below {plan.sequence_length}"]
    method = MethodType(plan.method)
    if method is MethodType.FULL:
        remedies.append("spec.method.type LoRA or QLoRA")
        if plan.world_size > 1 and last.zero_stage != ZERO_STAGES[method][-1]:
            remedies.append(f"spec.compute.zeroStage {ZERO_STAGES[method][-1]}")
    elif method is MethodType.LORA:
        remedies.append("spec.method.type QLoRA")
    remedies.append("more memory per process, or a smaller model")
    spared = (
        "The model did not fit before training began"
        if loading
        else f"Nothing is left to spare: microBatchSize is {last.micro_batch_size} and gradient checkpointing is on"
    )
    return (
        f"{spared}. By estimate weights, gradients and optimizer take {_gib(states)}, and activations of one row "
        f"{_gib(row)} without checkpointing{limit}. In a new run, use {'; or '.join(remedies)}."
    )


def load_rung(config: RunConfig) -> MemoryRung:
    """What earlier attempts of this very RunConfig remember; nothing where there is no such file that can be read."""
    try:
        found = MemoryRung.model_validate_json((Path(config.paths.run) / RUNG_FILE).read_text())
    except (OSError, ValidationError):
        return MemoryRung()
    return found if found.run_config == digest_of(config) else MemoryRung()


def save_rung(config: RunConfig, rung: int, changes: list[str]) -> MemoryRung:
    """Remember it for the attempts to come."""
    remembered = MemoryRung(run_config=digest_of(config), rung=rung, changes=changes)
    write_atomic(Path(config.paths.run) / RUNG_FILE, remembered.to_json().encode(), durable=True)
    return remembered


def _sentence(name: str, was: object, now: object) -> str:
    words = name.split("_")
    field = words[0] + "".join(word.title() for word in words[1:])
    return f"{field} on" if now is True else f"{field} {was} → {now}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
