"""Which weights `spec.method.freeze` leaves as they are: identified by their names, the same in files and in models."""

import re
from typing import TYPE_CHECKING

from hone.contract.settings import Freeze

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The first number in a weight's name is its layer: model.layers.3.mlp.up_proj.weight, h.3.mlp.c_fc.weight.
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")


def is_frozen(name: str, freeze: Freeze) -> bool:
    """Whether the weight of that name is not trained."""
    if layer := _LAYER.search(name):
        return int(layer[1]) < freeze.layers
    return freeze.embeddings and any(part in _EMBEDDINGS for part in name.split("."))


def freeze_weights(model: "PreTrainedModel", freeze: Freeze | None) -> None:
    """Take the frozen weights out of training."""
    if freeze is None:
        return
    for name, parameter in model.named_parameters():
        if is_frozen(name, freeze):
            parameter.requires_grad_(False)
