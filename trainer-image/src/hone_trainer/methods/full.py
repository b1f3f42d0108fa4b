"""Full: every weight is trained. The artifact is a whole model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.data.labels import padding_id
from hone_trainer.data.prepared import load_prepared
from hone_trainer.methods.base import Method
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.inference import division
from hone_trainer.models.loading import load_config, load_model
from hone_trainer.protocol.planfile import require_plan

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def peft_config(config: RunConfig, architecture: Architecture, plan: Plan, model: "PreTrainedModel") -> None:
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

    if config.topology.gpus_per_node and plan.zero_stage != 3:
        # Straight to the GPU: otherwise each rank of a pod would first have a copy in host memory. Under ZeRO-3 the
        # first rank alone reads the weights.
        settings["device_map"] = {"": torch.cuda.current_device()}
    dtype = getattr(torch, plan.precision)
    model: PreTrainedModel = load_model(auto, config.paths.model, dtype=dtype, **settings)
    return model


def export(config: RunConfig, architecture: Architecture, checkpoint: Path, directory: Path) -> str:
    """Write the trained weights as safetensors, in the data type of the base model's own.

    The Trainer's consolidated weights are read, which it saves with every ZeRO stage used here.
    """
    served = served_config(config, architecture)
    model = load_model(architecture.model_class(), checkpoint, dtype=served.dtype or "auto", config=served)
    model.save_pretrained(directory)
    return "Model"


def served_config(config: RunConfig, architecture: Architecture) -> Any:
    """The config of the exported model: that of the base model with the settings of a new head.

    Not that of the checkpoint: libraries change it for training. TRL has experts' models return what their routers
    computed, which ends their generation with an error, and transformers turns off the cache of keys and values.
    """
    served = load_config(config.paths.model)
    if architecture.has_head:
        from hone_trainer.models import head

        classes = load_prepared(require_plan(config).prepared).classes
        served.update(head.settings(classes))
        served.get_text_config().pad_token_id = padding_id(load_tokenizer(config.paths.model), chat=classes is None)
    served._name_or_path = config.model_name
    return served


def load(config: RunConfig, architecture: Architecture, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The exported model."""
    model: PreTrainedModel = load_model(architecture.model_class(), directory, dtype=dtype, **division())
    return model


METHOD = Method(load_base=load_base, peft_config=peft_config, export=export, load=load)
