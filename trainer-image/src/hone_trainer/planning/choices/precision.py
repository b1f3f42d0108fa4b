"""In which type of 16 bits GPUs compute: bfloat16, or float16 where a GPU has no bfloat16."""

from hone.contract.settings import Precision
from hone_trainer.planning.choices.base import SET_IN_THE_SPEC, Choice, Choices
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.protocol.errors import BadInput

FIELD = "spec.compute.precision"
BFLOAT16_FROM = (8, 0)
"""Compute capability from which GPUs have bfloat16; others compute it by float32, several times slower."""
LEAST_CAPABILITY = (7, 5)
"""What CUDA 13 supports at least, with which the trainer image's torch is built."""
TOO_LARGE_FOR_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Families whose activations leave the range of float16, by transformers' name. vLLM 0.31 refuses to serve them in it
(vllm/config/model.py)."""


def choose_precision(inputs: PlanInputs, choices: Choices) -> Choices:
    """The type in which GPUs compute, if it is float16.

    Raises:
        BadInput: the GPUs are too old, or the model's activations leave the range of float16.
    """
    capability, requested = _capability(inputs), inputs.topology.precision
    if not inputs.on_gpu:
        return choices
    if capability and capability < LEAST_CAPABILITY:
        raise BadInput(
            "spec.compute.pod.nodeSelector",
            f"the GPUs have compute capability {_text(capability)}, but CUDA 13 needs {_text(LEAST_CAPABILITY)}",
            "Select nodes with newer GPUs.",
        )
    lacks = bool(capability and capability < BFLOAT16_FROM)
    if requested is Precision.BFLOAT16 and lacks:
        choices = choices.warn(f"Training is slow: the GPUs have {_lacking(inputs)}, and compute it by float32.")
    if requested is Precision.BFLOAT16 or not (requested or lacks):
        return choices
    family = inputs.model.model_type
    if family in TOO_LARGE_FOR_FLOAT16:
        why = "" if requested else f", and the GPUs have {_lacking(inputs)}"
        raise BadInput(
            FIELD,
            f"models of type {family} compute values beyond the range of float16{why}",
            f"Use GPUs of compute capability {_text(BFLOAT16_FROM)} or higher, or set it to bfloat16, which is slow on "
            "others.",
        )
    why = SET_IN_THE_SPEC if requested else f"The GPUs have {_lacking(inputs)}."
    steps = "The loss is scaled; a step whose gradients overflow is skipped, and the scale halved."
    return choices.choose(compute_dtype=Choice(Precision.FLOAT16, f"{why} {steps}"))


def _capability(inputs: PlanInputs) -> tuple[int, int] | None:
    """The compute capability of the GPUs, the lowest of several; None: unknown."""
    if inputs.topology.compute_capability is None:
        return None
    major, _, minor = inputs.topology.compute_capability.partition(".")
    return int(major), int(minor or 0)


def _lacking(inputs: PlanInputs) -> str:
    capability = inputs.topology.compute_capability
    return f"no bfloat16 (compute capability {capability}, below {_text(BFLOAT16_FROM)})"


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
