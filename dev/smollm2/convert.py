"""Writes the model of the package's GGUF file as `save_pretrained` of transformers does."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

# The original's, which the reader of GGUF does not take over: without it nothing limits a row's length.
POSITIONS = 8192


def convert(gguf: Path, folder: Path) -> None:
    """Write config, weights in bfloat16, tokenizer and chat template into `folder`.

    transformers refuses to save a model that it has read from a GGUF file, so the weights move into a new one.
    """
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings: dict[str, Any] = quantized.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(
        **{key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    )
    model.bfloat16()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source, model_max_length=POSITIONS)
    tokenizer.save_pretrained(folder)
    # Pods run as another user.
    for path in folder.iterdir():
        path.chmod(0o644)
