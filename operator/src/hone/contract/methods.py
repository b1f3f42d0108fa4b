"""The methods: which weights are trained, and what the plan, the rules and the documentation need to know."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class MethodType(StrEnum):
    """Which weights are trained."""

    LORA = "LoRA"
    QLORA = "QLoRA"
    FULL = "Full"

    @property
    def facts(self) -> "MethodFacts":
        """The method's record."""
        return METHODS[self]

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained next to the base model's weights, which stay as they are."""
        return self.facts.adapts


@dataclass(frozen=True)
class MethodFacts:
    """One method.

    Attributes:
        trains: what it trains, as a sentence that begins with its name.
        adapts: whether an adapter is trained next to the base model's frozen weights.
        zero_stages: the ZeRO stages that it supports; 0 is plain DDP.
        why_not_zero: why it does not support the other stages; None if it supports all.
        quantized: whether the linear layers of the base model are stored in 4 bits.
        first_stage: the ZeRO stage for several processes if their memory is unknown.
        lighter: the methods that need less memory, as a suggestion if the run does not fit.
    """

    trains: str
    adapts: bool
    zero_stages: tuple[int, ...] = (0, 2, 3)
    why_not_zero: str | None = None
    quantized: bool = False
    first_stage: int = 0
    lighter: tuple[MethodType, ...] = ()


METHODS: Mapping[MethodType, MethodFacts] = {
    MethodType.LORA: MethodFacts(
        "LoRA trains small matrices added to the frozen weights of the base model.",
        adapts=True,
        lighter=(MethodType.QLORA,),
    ),
    MethodType.QLORA: MethodFacts(
        "QLoRA does the same, with the frozen weights quantized to 4 bits.",
        adapts=True,
        zero_stages=(0, 2),
        why_not_zero="transformers 5.23 loads all quantized weights in each process instead of sharding them "
        "(modeling_utils.py: `is_deepspeed_zero3_enabled() and not is_quantized`)",
        quantized=True,
    ),
    MethodType.FULL: MethodFacts(
        "Full trains all weights.", adapts=False, first_stage=2, lighter=(MethodType.LORA, MethodType.QLORA)
    ),
}
"""Every method's record."""
ADAPTER_METHODS = tuple(method.value for method in METHODS if method.adapts)
"""The methods that train an adapter."""
WEIGHT_METHODS = tuple(method.value for method in METHODS if not method.adapts)
"""The methods that train the base model's weights."""
