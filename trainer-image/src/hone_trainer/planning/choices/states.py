"""Where the training state is held: how ZeRO shards it, in how many bits moments are, and what waits in host memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hone.contract.runconfig import HOST_MEMORY_BASE
from hone.contract.settings import Optimizer
from hone_trainer.planning.choices.base import SET_IN_THE_SPEC, Choice, Choices
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB, gib

MOST_HOST_MEMORY = 256 * GIB
"""Host memory for each GPU up to which the plan offloads by itself: what nodes for training usually have."""
_WHY_STAGE = {2: "Plain DDP would not fit.", 3: "Neither plain DDP nor ZeRO-2 would fit."}


@dataclass(frozen=True)
class States:
    """One way to hold weights, gradients and optimizer state."""

    zero_stage: int
    optim: Optimizer = Optimizer.ADAMW
    offload_optimizer: bool = False
    offload_param: bool = False

    @property
    def offloads(self) -> bool:
        """Whether a part of them is in host memory."""
        return self.offload_optimizer or self.offload_param or self.optim.paged


def states_to_try(inputs: PlanInputs) -> tuple[list[States], str]:
    """The ways to try, the fastest first, and why the first one has its ZeRO stage.

    What costs time comes last: of ZeRO, communication; of moments in 8 bits, a little precision, and so only where one
    process has nobody to share with; of host memory, a multiple of a step's time, and so only for Full, since QLoRA is
    faster than LoRA with weights that come from the host.
    """
    stages, why = _stages(inputs)
    topology, optim = inputs.topology, inputs.spec.optim
    ways = [States(stage, optim or Optimizer.ADAMW) for stage in stages if not (optim and optim.in_8_bits and stage)]
    ways += [way for way in _frugal(inputs, stages) if way not in ways]
    if topology.offload_optimizer is not None or topology.offload_param is not None:
        ways = list(dict.fromkeys(_as_requested(inputs, ways)))
        # With one process ZeRO is there for offloading alone.
        why = why if topology.zero_stage is not None or not ways[0].offloads else "Offloading is a part of ZeRO."
    return ways, why


def _frugal(inputs: PlanInputs, stages: list[int]) -> Iterator[States]:
    """What the plan chooses by itself where nothing else fits."""
    topology = inputs.topology
    if not inputs.on_gpu or inputs.method.adapts:
        return
    if inputs.spec.optim is None and topology.world_size == 1 and 0 in stages:
        yield States(0, Optimizer.ADAMW_8BIT)
        yield States(0, Optimizer.PAGED_ADAMW_8BIT)
    if (inputs.spec.optim or Optimizer.ADAMW).in_8_bits or topology.zero_stage == 0:
        return
    # ZeRO-2 sums the gradients of micro-batches in host memory in bfloat16 (DeepSpeed 0.19.8), ZeRO-3 in float32.
    stage = topology.zero_stage or 3
    yield States(stage, offload_optimizer=True)
    if stage == 3:
        yield States(stage, offload_optimizer=True, offload_param=True)


def _as_requested(inputs: PlanInputs, ways: list[States]) -> Iterator[States]:
    topology = inputs.topology
    optimizer, param = topology.offload_optimizer, topology.offload_param
    least = 3 if param else 2 if optimizer else 0
    for way in ways:
        stage = way.zero_stage if way.zero_stage >= least else topology.zero_stage or 3
        requested = replace(way, zero_stage=stage)
        if optimizer is not None:
            requested = replace(requested, offload_optimizer=optimizer)
        if param is not None:
            requested = replace(requested, offload_param=param)
        alone = topology.world_size == 1 and topology.zero_stage is None and not requested.offloads
        if not (stage and (alone or requested.optim.in_8_bits)):
            yield requested


def _stages(inputs: PlanInputs) -> tuple[list[int], str]:
    """The ZeRO stages to try, in order, and why the first one."""
    topology, method = inputs.topology, inputs.method
    if topology.zero_stage is not None:
        return [topology.zero_stage], SET_IN_THE_SPEC
    if topology.world_size == 1:
        return [0], "Only one process."
    known = topology.memory_bytes is not None
    if not known and (first := method.facts.first_stage) and not (inputs.spec.optim or Optimizer.ADAMW).in_8_bits:
        stages = [stage for stage in method.facts.zero_stages if stage >= first]
        return stages, f"{method.value} on several processes whose memory is unknown."
    why = "Plain DDP fits." if known else f"{method.value} needs little; memory is unknown."
    return list(method.facts.zero_stages), why


def why_stage(inputs: PlanInputs, states: States, first: States, why: str) -> str:
    """Why the run has this ZeRO stage, if the first one that was tried has `why`."""
    if inputs.topology.zero_stage is not None or states.zero_stage == first.zero_stage:
        return why
    if inputs.topology.world_size == 1:
        return "One process shares with nobody, but only ZeRO keeps state in host memory."
    return _WHY_STAGE[states.zero_stage]


def pod_host_bytes(inputs: PlanInputs, process_bytes: int) -> int:
    """Host memory of a pod whose processes keep so much there."""
    return (process_bytes + HOST_MEMORY_BASE) * inputs.topology.processes_per_node


def host_holds(inputs: PlanInputs, process_bytes: int) -> bool:
    """Whether a process may keep so many bytes in host memory: by the limit that the spec sets, or else unless they are
    more than nodes usually have for each GPU and the spec does not request to offload them."""
    topology = inputs.topology
    requested = topology.offload_optimizer or topology.offload_param
    limit = topology.host_memory_bytes or (None if requested else MOST_HOST_MEMORY)
    return not process_bytes or limit is None or process_bytes + HOST_MEMORY_BASE <= limit


def choose_states(inputs: PlanInputs, choices: Choices, states: States, process_bytes: int) -> Choices:
    """The plan's fields for these states, and a warning of what they cost.

    Raises:
        BadInput: the pod's host memory cannot hold what the spec offloads.
    """
    topology, spec = inputs.topology, inputs.spec
    needed = pod_host_bytes(inputs, process_bytes)
    if not host_holds(inputs, process_bytes):
        raise BadInput(
            "spec.compute.resources.limits.memory",
            f"each trainer pod needs about {gib(needed)} of host memory for what is offloaded from its GPUs",
            f"Raise it to {gib(needed)}, or remove it: then the pods request as much as they need.",
        )
    why = "Nothing else fits into the memory of a GPU."
    in_host = f"{gib(process_bytes * topology.processes_per_node)} for what is not on GPUs, the rest for libraries."
    choices = choices.choose(
        optim=Choice(spec.optim, SET_IN_THE_SPEC) if spec.optim else _optim(states),
        offload_optimizer=_on(states.offload_optimizer, topology.offload_optimizer, why),
        offload_param=_on(states.offload_param, topology.offload_param, why),
        host_memory_bytes=Choice(needed, in_host) if process_bytes else Choice(None),
    )
    cost = _cost(states, choices, topology.world_size)
    return choices.warn(f"{cost} Each trainer pod requests {gib(needed)} of host memory.") if cost else choices


def _optim(states: States) -> Choice:
    if not states.optim.in_8_bits:
        return Choice(None)
    where = " They leave the GPU when it is full, which takes time." if states.optim.paged else ""
    return Choice(states.optim, f"Moments of 32 bits would not fit; in 8 bits, steps are a little less exact.{where}")


def _on(value: bool, requested: bool | None, why: str) -> Choice:
    return Choice(value or None) if not value else Choice(True, SET_IN_THE_SPEC if requested else why)


def _cost(states: States, choices: Choices, processes: int) -> str | None:
    """What offloading costs, in words; None where it costs nothing."""
    moved = 2 * choices.model.parameters
    if states.offload_param:
        return (
            f"Training is very slow: each micro-batch reads {gib(moved // processes)} of weights from host memory "
            "two or three times on each GPU, and gathers them from all."
        )
    if states.offload_optimizer:
        return (
            f"Training is slow: each step moves {gib(2 * moved // processes)} between each GPU and host memory, and "
            "AdamW runs on the CPU. A larger spec.hyperparameters.globalBatchSize makes this a smaller part."
        )
    return "The optimizer's moments are moved to host memory when the GPU is full." if states.optim.paged else None
