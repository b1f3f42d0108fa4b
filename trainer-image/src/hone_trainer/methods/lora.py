"""LoRA: small matrices beside the frozen weights, by PEFT. The artifact is the adapter."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.architectures import ARCHITECTURES, auto_class
from hone_trainer.data.labels import padding_id
from hone_trainer.data.prepared import load_prepared
from hone_trainer.models import load_tokenizer
from hone_trainer.planfile import load_plan

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
        task_type=ARCHITECTURES[config.objective].task_type,
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout or 0.0,
        target_modules=modules or "all-linear",
    )


def export(config: RunConfig, checkpoint: Path, directory: Path) -> str:
    """Copy the adapter's weights, and its configuration without this machine's path of the base model.

    An adapter with a trained head is merged into a whole model instead, since vLLM cannot serve such a one.
    """
    if ARCHITECTURES[config.objective].task_type == "SEQ_CLS":
        return _export_merged(config, checkpoint, directory)
    shutil.copyfile(checkpoint / WEIGHTS_FILE, directory / WEIGHTS_FILE)
    settings = json.loads((checkpoint / CONFIG_FILE).read_text())
    settings["base_model_name_or_path"] = config.model_name
    settings["inference_mode"] = True
    if isinstance(settings.get("target_modules"), list):
        # A set when PEFT wrote it: in one order, equal adapters have equal digests.
        settings["target_modules"].sort()
    (directory / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return "Adapter"


def _export_merged(config: RunConfig, checkpoint: Path, directory: Path) -> str:
    """Write base, adapter and head as one model, in the data type of the base model's own."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig

    from hone_trainer import head

    planned = load_plan(config)
    if planned is None:
        raise RuntimeError(f"{config.paths.run} holds no plan")
    classes = load_prepared(planned.prepared).classes
    dtype = AutoConfig.from_pretrained(config.paths.model, local_files_only=True).dtype or torch.float32
    # Merged in fp32: sums of weights and updates would else be rounded twice.
    base = auto_class(config.objective).from_pretrained(
        config.paths.model, dtype=torch.float32, local_files_only=True, **head.settings(classes)
    )
    tokenizer = load_tokenizer(config.paths.model)
    base.config.get_text_config().pad_token_id = padding_id(tokenizer, chat=classes is None)
    merged = PeftModel.from_pretrained(base, str(checkpoint)).merge_and_unload().to(dtype)
    merged.config._name_or_path = config.model_name
    merged.save_pretrained(directory)
    return "Model"


def load(config: RunConfig, directory: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The base model with the exported adapter beside its weights, not merged: as the server runs it."""
    from peft import PeftModel

    auto = auto_class(config.objective)
    if (directory / CONFIG_FILE).exists():
        base = auto.from_pretrained(config.paths.model, dtype=dtype, local_files_only=True)
        return PeftModel.from_pretrained(base, str(directory))
    return auto.from_pretrained(str(directory), dtype=dtype, local_files_only=True)
