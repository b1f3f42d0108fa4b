"""Whether rows that are packed into one stay unseen by each other: tried out on a small model of the same kind.

Which architectures respect `position_ids` that start again at 0 is in their code, not in their config: those with a
state that runs along the row (Mamba, linear attention) or with positions of their own (ALiBi) mostly do not.
"""

import copy
import logging
from pathlib import Path
from typing import Any

from hone_trainer.models.loading import build_model, load_config

log = logging.getLogger(__name__)

# Small enough to be built in no time; the layers are enough for every pattern of kinds of layers.
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_CLOSE = 1e-4
"""Largest difference taken for rounding, as a share of the largest output."""


def keeps_rows_apart(directory: Path) -> bool:
    """Whether, in a model of this directory's kind, a row's outputs are the same alone and packed behind another.

    False too where no small model of this kind can be built, such as of those that also read images: then nothing is
    known.
    """
    try:
        config = load_config(directory)
        # The sizes of one that also reads images are in parts of its config: it would be built as large as it is.
        return config.get_text_config() is config and _difference(_shrunk(config)) <= _CLOSE
    except Exception as error:
        log.info("Packing could not be tested", extra={"error": f"{type(error).__name__}: {error}"[:500]})
        return False


def _shrunk(config: Any) -> Any:
    small = copy.deepcopy(config)
    for name, value in _SMALL.items():
        if getattr(config, name, None) is not None:
            setattr(small, name, min(value, getattr(config, name)))
    if getattr(config, "layer_types", None):
        small.layer_types = config.layer_types[: small.num_hidden_layers]
    return small


def _difference(config: Any) -> float:
    """Largest difference between the second row's outputs, packed and alone, as a share of the largest."""
    import torch
    from transformers import AutoModelForCausalLM

    # Its weights are random, but the random state of whoever asks must not change.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(AutoModelForCausalLM, config, dtype=torch.float32).eval()
        first, second = (torch.randint(config.vocab_size, (1, length)) for length in (7, 10))
        positions = torch.cat([torch.arange(7), torch.arange(10)])[None]
        alone = model(input_ids=second, use_cache=False).logits
        packed = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[:, 7:]
    return float((packed - alone).abs().max() / alone.abs().max())
