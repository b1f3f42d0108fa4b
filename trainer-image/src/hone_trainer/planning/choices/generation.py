"""What generates the answers that a run learns from: the training processes, or a vLLM server next to them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hone.contract.methods import ADAPTER_METHODS
from hone.contract.runconfig import GENERATION_GPU_SHARE, AnswerServer
from hone.contract.settings import GenerationEngine
from hone_trainer.planning.choices.base import SET_IN_THE_SPEC, Choice, Choices
from hone_trainer.planning.choices.model import ATTENTION
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.server_terms import CPU_CACHE, AnswerServerTerms, answer, answers_at_once, per_device
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import gib

ENGINE = "spec.generation.engine"
_OR_TRAINER = "or set spec.generation.engine to Trainer"


class _Obstacle(NamedTuple):
    """Why a server cannot generate the answers, the field of the spec to change, and what to do."""

    field: str
    why: str
    remedy: str


def choose_engine(inputs: PlanInputs, choices: Choices) -> Choices:
    """The server where it can be used and, unless the spec asks for it, where it pays; else the training processes.

    Raises:
        BadInput: the spec asks for the server, and something prevents it.
    """
    server = inputs.config.answer_server
    if server is None:
        return choices
    if server.engine is GenerationEngine.TRAINER:
        return _by_trainer(choices, SET_IN_THE_SPEC)
    requested = server.engine is GenerationEngine.VLLM
    terms = _terms(inputs, choices, server)
    obstacle = next(filter(None, (check(inputs, choices, terms) for check in _CHECKS)), None)
    if obstacle and requested:
        raise BadInput(obstacle.field, obstacle.why, obstacle.remedy)
    if not obstacle and not requested and not server.gpus:
        return _by_trainer(choices, "On the CPU they are seldom slower than a server, which holds a second model.")
    if obstacle:
        return _by_trainer(choices, f"VLLM cannot be used: {obstacle.why}.")
    need, why = per_device(terms), SET_IN_THE_SPEC if requested else "The default on GPUs, where it fits in memory."
    return choices.choose(
        generation_engine=Choice(GenerationEngine.VLLM, why),
        generation_memory_bytes=Choice(need, _why_bytes(server, terms)),
    )


def _by_trainer(choices: Choices, why: str) -> Choices:
    return choices.choose(generation_engine=Choice(GenerationEngine.TRAINER, why))


def _terms(inputs: PlanInputs, choices: Choices, server: AnswerServer) -> AnswerServerTerms:
    length = max(choices.get("sequence_length", int), inputs.spec.sequence_length or 0)
    adapter = choices.get("trainable_parameters", int) if choices.lora else 0
    return AnswerServerTerms(inputs.model, adapter, server.gpus, length)


def _why_bytes(server: AnswerServer, terms: AnswerServerTerms) -> str:
    if server.memory_bytes is None and server.gpus:
        return "Whether the server fits is unknown: set spec.compute.gpuMemory to have this checked."
    count = answers_at_once(terms, server.memory_bytes or 0)
    place = f"{server.gpus} GPUs of its own" if server.gpus > 1 else "a GPU of its own" if server.gpus else "the CPU"
    return f"On {place}, with room for {count} of the longest answers at once."


def _no_adapter(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    if inputs.method.adapts:
        return None
    methods = " or ".join(ADAPTER_METHODS)
    return _Obstacle(
        "spec.method.type",
        f"with method {inputs.method.value} there is no adapter to hand over to it",
        f"Use {methods}, {_OR_TRAINER}.",
    )


def _spread(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    if choices.get("zero_stage", int) < 3:
        return None
    return _Obstacle(
        ENGINE,
        "the model fits only with ZeRO-3, which spreads the adapter over the processes",
        "Set it to Auto or Trainer, or use GPUs with more memory.",
    )


def _unserved(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    if choices.model.serves_adapter:
        return None
    if not choices.model.adapted_experts:
        return _Obstacle(
            ENGINE, f"vLLM cannot serve adapters of {choices.model.model_type}", "Set it to Auto or Trainer."
        )
    return _Obstacle(
        "spec.method.lora.targetModules",
        "vLLM cannot read adapters on experts",
        f"Set it to {ATTENTION}, {_OR_TRAINER}.",
    )


def _heads(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    heads = inputs.model.heads
    if not heads or heads % terms.devices == 0:
        return None
    fewer = next(count for count in range(terms.devices, 0, -1) if heads % count == 0)
    return _Obstacle(
        "spec.generation.gpusPerNode",
        f"the {heads} attention heads of the model cannot be divided among {terms.gpus} GPUs",
        f"Use {fewer}, {_OR_TRAINER}.",
    )


def _cache(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    if terms.gpus or answer(terms) <= CPU_CACHE:
        return None
    return _Obstacle(
        "spec.hyperparameters.sequenceLength",
        f"keys and values of {terms.length} tokens take {gib(answer(terms))}, and a server on the CPU has "
        f"{gib(CPU_CACHE)} for them",
        f"Lower it, {_OR_TRAINER}.",
    )


def _memory(inputs: PlanInputs, choices: Choices, terms: AnswerServerTerms) -> _Obstacle | None:
    server = inputs.config.answer_server
    limit = server.memory_bytes if server else None
    if limit is None:
        return None
    need, most = per_device(terms), int(limit * GENERATION_GPU_SHARE) if terms.gpus else limit
    if need <= most:
        return None
    what = f"the server needs about {gib(need)} {'on each of its GPUs' if terms.gpus else 'of memory'}, and has"
    if terms.gpus:
        return _Obstacle(
            "spec.generation.gpusPerNode",
            f"{what} {gib(most)}, {GENERATION_GPU_SHARE:.0%} of a GPU",
            f"Raise it, use GPUs with more memory, {_OR_TRAINER}.",
        )
    return _Obstacle(
        "spec.generation.resources.limits.memory",
        f"{what} {gib(most)}",
        f"Raise it to {gib(need)}, {_OR_TRAINER}.",
    )


_CHECKS: Sequence[Callable[[PlanInputs, Choices, AnswerServerTerms], _Obstacle | None]] = (
    _no_adapter,
    _spread,
    _unserved,
    _heads,
    _cache,
    _memory,
)
