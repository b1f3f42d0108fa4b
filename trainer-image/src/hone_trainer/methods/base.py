"""The record of a method in the trainer: what it does in train and finish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.models.architectures import Architecture

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PreTrainedModel


def _as_built(model: "torch.nn.Module") -> None:
    """Leave the model as the trainer has built it."""


@dataclass(frozen=True)
class Method:
    """What a method does in train and finish.

    Attributes:
        load_base: (Auto class, config, plan, **settings): the base model as ranks train on it; settings of
            `from_pretrained`.
        peft_config: (config, architecture, plan, model): the adapter to put onto the base model, or None to train the
            base's own weights.
        export: (config, architecture, checkpoint, directory) -> kind: write the checkpoint's weights as they will be
            served.
        load: (config, architecture, directory, dtype): load what `export` wrote, ready to score.
        after_build: what is to be done to the model once its trainer is built.
    """

    load_base: "Callable[..., PreTrainedModel]"
    peft_config: "Callable[[RunConfig, Architecture, Plan, PreTrainedModel], PeftConfig | None]"
    export: Callable[[RunConfig, Architecture, Path, Path], str]
    load: "Callable[[RunConfig, Architecture, Path, torch.dtype], PreTrainedModel]"
    after_build: "Callable[[torch.nn.Module], None]" = _as_built
