"""A model whose adapter is merged into its weights for a while, which are bit for bit the same afterwards.

A merged model computes a token in fewer and larger steps. Weights in 16 bits are left alone: updates of early steps are
smaller than the distance to the next number there, so they would be rounded away, and another model would answer than
the one that learns.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def merged(model: "PreTrainedModel", most_bytes: int) -> Iterator[int]:
    """Merge the adapter of a model where that is exact enough, and can be undone.

    Args:
        model: as it is trained; one without an adapter stays as it is.
        most_bytes: what copies of the weights may take. They are what is restored: to subtract what was added would
            leave the error of rounding, and more of it after each step.

    Yields:
        Bytes of the copies; 0: nothing is merged.
    """
    weights = _weights(model)
    held = sum(weight.nbytes for weight in weights)
    if not weights or held > most_bytes:
        yield 0
        return
    adapted: Any = model
    copies = [weight.detach().clone() for weight in weights]
    try:
        adapted.merge_adapter()
        yield held
    finally:
        try:
            adapted.unmerge_adapter()
        finally:
            for weight, copy in zip(weights, copies, strict=True):
                weight.data.copy_(copy)


def _weights(model: "PreTrainedModel") -> list[torch.Tensor]:
    """The weights that the adapter changes; none if one of them cannot be merged into: what is not in 32 bits, what
    ZeRO-3 has spread, and what other layers use, too."""
    from peft.tuners.lora import LoraLayer

    weights = [_weight(module) for module in model.modules() if isinstance(module, LoraLayer)]
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    mergeable = all(
        weight.dtype == torch.float32 and not hasattr(weight, "ds_id") and uses[id(weight)] == 1 for weight in weights
    )
    return weights if mergeable else []


def _weight(module: Any) -> torch.Tensor:
    from peft.tuners.lora.layer import ParamWrapper

    wraps = isinstance(module, ParamWrapper)
    weight: torch.Tensor = module.get_param() if wraps else module.get_base_layer().weight
    return weight
