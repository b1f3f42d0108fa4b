"""The head for classes, or for a score, on a base model: how the model is loaded with it, and what it starts from."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from hone_trainer.data.classes import Classes
from hone_trainer.models.architectures import HEADS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DEFAULT_SCALE = 0.02

SCORE = "reward"
"""The only label of a model that scores."""


def settings(classes: Classes | None) -> dict[str, Any]:
    """Settings of the head for transformers' `from_pretrained`; the artifact's config has them, too.

    Args:
        classes: the classes; None: the head gives one score. By the problem type, vLLM returns the score itself,
            probabilities that add up to 1 of single classes, and one from 0 to 1 of each of several.
    """
    if classes is None:
        return {"id2label": {0: SCORE}, "label2id": {SCORE: 0}, "problem_type": "regression"}
    return {
        "id2label": dict(enumerate(classes.names)),
        "label2id": {name: index for index, name in enumerate(classes.names)},
        "problem_type": "multi_label_classification" if classes.several else "single_label_classification",
    }


def is_head(name: str) -> bool:
    """Whether a weight's name is that of such a head."""
    return name.split(".")[0] in HEADS


def head_of(model: "PreTrainedModel") -> torch.nn.Module:
    """The model's head, shape [classes, hidden]."""
    return next(head for name in HEADS if isinstance(head := getattr(model, name, None), torch.nn.Module))


def initialize(model: "PreTrainedModel", seed: int) -> None:
    """Draw the head's weights from the normal distribution by the seed alone, and leave its bias, if any, at 0.

    The same on every rank and in every attempt, whatever was drawn before. The scale is the model's own
    `initializer_range`.
    """
    config = model.config.get_text_config()
    scale = getattr(config, "initializer_range", None) or _DEFAULT_SCALE
    chance = torch.Generator().manual_seed(seed)
    for parameter in head_of(model).parameters():
        with _gathered(parameter), torch.no_grad():
            drawn = torch.zeros(parameter.shape)
            if drawn.dim() > 1:
                drawn.normal_(std=scale, generator=chance)
            parameter.copy_(drawn)


def _gathered(parameter: torch.nn.Parameter) -> AbstractContextManager[object]:
    """The whole weight, where ZeRO-3 has spread it over the ranks; what rank 0 writes holds for all."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)  # type: ignore[no-any-return]
