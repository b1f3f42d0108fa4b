"""The methods: which weights are trained, and how they are exported and loaded again.

To add one, write its module here with the functions of `Method` and put it into `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import MethodType
from hone_trainer.methods import full, lora, qlora
from hone_trainer.models.architectures import Architecture

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Method:
    """What a method does in train and finish."""

    peft_config: "Callable[[RunConfig, Architecture, Plan], PeftConfig | None]"
    """The adapter to put onto the base model, or None to train the base's own weights."""
    export: Callable[[RunConfig, Architecture, Path, Path], str]
    """(config, architecture, checkpoint, directory) -> kind: write the checkpoint's weights as they will be served."""
    load: "Callable[[RunConfig, Architecture, Path, torch.dtype], PreTrainedModel]"
    """(config, architecture, directory, dtype): load what `export` wrote, ready to score."""
    load_base: "Callable[..., PreTrainedModel]" = full.load_base
    """(Auto class, config, plan, **settings): the base model as ranks train on it; settings of `from_pretrained`."""


METHODS: dict[MethodType, Method] = {
    MethodType.LORA: Method(peft_config=lora.peft_config, export=lora.export, load=lora.load),
    MethodType.QLORA: Method(
        peft_config=lora.peft_config, export=lora.export, load=lora.load, load_base=qlora.load_base
    ),
    MethodType.FULL: Method(peft_config=full.peft_config, export=full.export, load=full.load),
}
