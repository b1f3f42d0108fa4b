"""Full: every weight is trained. The artifact is a whole model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.methods.base import Method
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.loading import load_config, load_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def peft_config(config: RunConfig, architecture: Architecture, plan: Plan) -> None:
    """None: the base's own weights are trained."""
    return


def load_base(auto: Any, config: RunConfig, plan: Plan, **settings: Any) -> "PreTrainedModel":
    """The base model in the planned precision.

    Args:
        auto: the Auto class of its kind of model.
        config: with its directory.
        plan: with the precision.
        settings: more of `from_pretrained`'s arguments.
    """
    import torch

    dtype = getattr(torch, plan.precision)
    model: PreTrainedModel = load_model(auto, config.paths.model, dtype=dtype, **settings)
    return model


def export(config: RunConfig, architecture: Architecture, checkpoint: Path, directory: Path) -> str:
    """Write the trained weights as safetensors, in the data type of the base model's own.

    The Trainer's consolidated weights are read, which it saves with every ZeRO stage used here.
    """
    base = load_config(config.paths.model)
    model = load_model(architecture.model_class(), checkpoint, dtype=base.dtype or "auto")
    model.config._name_or_path = config.model_name
    model.save_pretrained(directory)
    return "Model"


def load(config: RunConfig, architecture: Architecture, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The exported model."""
    model: PreTrainedModel = load_model(architecture.model_class(), directory, dtype=dtype)
    return model


METHOD = Method(load_base=load_base, peft_config=peft_config, export=export, load=load)
