"""LoRA: small matrices next to the frozen weights, by PEFT. The artifact is the adapter."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.data.labels import padding_id
from hone_trainer.data.prepared import load_prepared
from hone_trainer.methods import full
from hone_trainer.methods.base import Method
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.loading import load_adapter, load_model
from hone_trainer.models.merging import merged_model
from hone_trainer.models.untrusted import ADAPTER, ADAPTER_WEIGHTS, CONFIG_BYTES
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.volumes import copy_file, read_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel


def peft_config(config: RunConfig, architecture: Architecture, plan: Plan) -> "LoraConfig":
    """PEFT's configuration of the planned adapter; all linear layers where the job names none."""
    from peft import LoraConfig

    if plan.lora_rank is None or plan.lora_alpha is None:
        raise ValueError(f"the plan of method {plan.method} has no adapter")
    modules = config.method.lora.target_modules if config.method.lora else None
    return LoraConfig(
        task_type=architecture.task_type,
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout or 0.0,
        target_modules=modules or "all-linear",
    )


def export(config: RunConfig, architecture: Architecture, checkpoint: Path, directory: Path) -> str:
    """Copy the adapter's weights, and its configuration without this machine's path of the base model.

    Where the job requests it, and always with a trained head, which vLLM cannot serve in an adapter, it is merged into
    a whole model instead.
    """
    if config.merge_output or architecture.has_head:
        _export_merged(config, architecture, checkpoint, directory)
        return "Model"
    copy_file(checkpoint, ADAPTER_WEIGHTS, directory / ADAPTER_WEIGHTS, "spec.workspace")
    settings = read_json(checkpoint, ADAPTER, "spec.workspace", CONFIG_BYTES)
    settings["base_model_name_or_path"] = config.model_name
    settings["inference_mode"] = True
    if isinstance(settings.get("target_modules"), list):
        # A set when PEFT wrote it: in one order, equal adapters have equal digests.
        settings["target_modules"].sort()
    (directory / ADAPTER).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return "Adapter"


def _export_merged(config: RunConfig, architecture: Architecture, checkpoint: Path, directory: Path) -> None:
    """Write base, adapter and head, if it has one, as one model."""
    auto, base = architecture.model_class(), config.paths.model
    if architecture.has_head:
        from hone_trainer.models import head

        classes = load_prepared(require_plan(config).prepared).classes
        merged = merged_model(auto, base, checkpoint, **head.settings(classes))
        merged.config.get_text_config().pad_token_id = padding_id(load_tokenizer(base), chat=classes is None)
    else:
        merged = merged_model(auto, base, checkpoint)
    merged.config._name_or_path = config.model_name
    merged.save_pretrained(directory)


def load(config: RunConfig, architecture: Architecture, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The base model with the exported adapter next to its weights, not merged: as the server runs it."""
    if not (directory / ADAPTER).exists():
        return full.load(config, architecture, directory, dtype)
    base = load_model(architecture.model_class(), config.paths.model, dtype=dtype)
    # To its callers, PEFT's wrapper is the model that it wraps.
    return cast("PreTrainedModel", load_adapter(base, directory))


METHOD = Method(load_base=full.load_base, peft_config=peft_config, export=export, load=load)
