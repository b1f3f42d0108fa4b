"""LoRA: small matrices beside the frozen weights, by PEFT. The artifact is the adapter."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def peft_config(config: RunConfig, plan: Plan) -> "LoraConfig":
    """PEFT's configuration of the planned adapter; all linear layers where the job names none."""
    from peft import LoraConfig

    modules = config.method.lora.target_modules if config.method.lora else None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout or 0.0,
        target_modules=modules or "all-linear",
    )


def export(config: RunConfig, checkpoint: Path, directory: Path) -> str:
    """Copy the adapter's weights, and its configuration without this machine's path of the base model."""
    shutil.copyfile(checkpoint / WEIGHTS_FILE, directory / WEIGHTS_FILE)
    settings = json.loads((checkpoint / CONFIG_FILE).read_text())
    settings["base_model_name_or_path"] = config.model_name
    settings["inference_mode"] = True
    if isinstance(settings.get("target_modules"), list):
        # A set when PEFT wrote it: in one order, equal adapters have equal digests.
        settings["target_modules"].sort()
    (directory / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return "Adapter"


def load(config: RunConfig, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The base model with the exported adapter beside its weights, not merged: as the server runs it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(config.paths.model, dtype=dtype, local_files_only=True)
    return PeftModel.from_pretrained(base, str(directory))
