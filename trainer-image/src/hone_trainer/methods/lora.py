"""LoRA: small matrices next to the frozen weights, by PEFT. The artifact is the adapter."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.methods import full
from hone_trainer.methods.base import Method
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.inference import division
from hone_trainer.models.loading import load_adapter, load_model
from hone_trainer.models.merging import merged_model
from hone_trainer.models.served_adapters import serves_adapters
from hone_trainer.models.untrusted import ADAPTER, ADAPTER_WEIGHTS, CONFIG_BYTES
from hone_trainer.protocol.volumes import copy_file, read_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel


def peft_config(config: RunConfig, architecture: Architecture, plan: Plan, model: "PreTrainedModel") -> "LoraConfig":
    """PEFT's configuration of the planned adapter; all linear layers where the job names none."""
    from hone_trainer.models.adapters import lora_config

    if plan.lora_rank is None or plan.lora_alpha is None:
        raise ValueError(f"the plan of method {plan.method} has no adapter")
    targets = config.method.lora.target_modules if config.method.lora else None
    return lora_config(
        model,
        architecture,
        targets,
        rank=plan.lora_rank,
        alpha=plan.lora_alpha,
        dropout=plan.lora_dropout or 0.0,
    )


def export(config: RunConfig, architecture: Architecture, checkpoint: Path, directory: Path) -> str:
    """Copy the adapter's weights, and its configuration without this machine's path of the base model.

    Where the job requests it, it is merged into a whole model instead; and always where vLLM cannot serve the adapter:
    with a trained head, with experts, whose adapters it reads wrongly, and of families that it serves whole only.
    """
    settings = read_json(checkpoint, ADAPTER, "spec.workspace", CONFIG_BYTES)
    served = full.served_config(config, architecture)
    unserved = settings.get("target_parameters") or not serves_adapters(served.model_type)
    if config.merge_output or architecture.has_head or unserved:
        merged_model(architecture.model_class(), config.paths.model, checkpoint, config=served).save_pretrained(
            directory
        )
        return "Model"
    copy_file(checkpoint, ADAPTER_WEIGHTS, directory / ADAPTER_WEIGHTS, "spec.workspace")
    settings["base_model_name_or_path"] = config.model_name
    settings["inference_mode"] = True
    if isinstance(settings.get("target_modules"), list):
        # A set when PEFT wrote it: in one order, equal adapters have equal digests.
        settings["target_modules"].sort()
    (directory / ADAPTER).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return "Adapter"


def load(config: RunConfig, architecture: Architecture, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The base model with the exported adapter next to its weights, not merged: as the server runs it."""
    if not (directory / ADAPTER).exists():
        return full.load(config, architecture, directory, dtype)
    divided = division()
    base = load_model(architecture.model_class(), config.paths.model, dtype=dtype, **divided)
    # PEFT divides a base again if a part of it is in the host's memory. To its callers, its wrapper is that base.
    return cast("PreTrainedModel", load_adapter(base, directory, **divided))


METHOD = Method(load_base=full.load_base, peft_config=peft_config, export=export, load=load)
