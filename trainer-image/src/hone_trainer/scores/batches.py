"""Batches of rows for a model's forward passes: bounded by the memory that they take, and halved where it runs out."""

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from hone.contract.exits import FailureClass
from hone_trainer.protocol.verdicts import classify

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_ROWS = 32
_CPU_BYTES = 1 << 30
_GPU_SHARE = 0.5
"""Of the memory that is free on the fullest GPU, what a batch may take by `row_bytes`; the rest is for what that does
not count: tiles of logits, and the memory that torch holds in pieces."""
_LOG_SECONDS = 10

logger = logging.getLogger(__name__)


def in_batches(
    model: "PreTrainedModel", score: Callable[[list[int]], None], lengths: Sequence[int], answer: int, what: str
) -> None:
    """Score rows in batches of about equal length, so that little is padding.

    A batch that runs out of memory is tried again with half as many rows, and so are those after it.

    Args:
        model: what they go through, on its device.
        score: scores the rows with these indices, at once; it must be repeatable.
        lengths: tokens of each row.
        answer: tokens that are generated after each row, at most.
        what: names this in the log.

    Raises:
        torch.OutOfMemoryError: a single row does not fit.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    done, logged, most, bytes_of = 0, time.monotonic(), _MOST_ROWS, row_bytes(model, answer)
    while done < len(order):
        batch, free = order[done : done + most], free_bytes()
        while len(batch) > 1 and len(batch) * bytes_of(lengths[batch[-1]]) > free:
            batch.pop()
        if not fits(score, batch):
            most = len(batch) // 2
            logger.warning("out of memory; smaller batches from here on", extra={"what": what, "rows": most})
            continue
        done += len(batch)
        if time.monotonic() - logged >= _LOG_SECONDS or done == len(order):
            logged = time.monotonic()
            logger.info("scoring", extra={"what": what, "rows": done, "of": len(order)})


def fits(score: Callable[[list[int]], None], batch: list[int]) -> bool:
    """Score a batch; False where memory ran out, and fewer rows may fit."""
    try:
        score(batch)
        return True
    except Exception as error:
        if len(batch) == 1 or classify(error, on_gpu=torch.cuda.is_available()) != FailureClass.OUT_OF_MEMORY:
            raise
    # Past the `except`: until then the traceback holds the tensors of the batch.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def free_bytes() -> int:
    """Bytes that a batch may take."""
    if not torch.cuda.is_available():
        return _CPU_BYTES
    devices = range(torch.cuda.device_count())
    return int(min(torch.cuda.mem_get_info(device)[0] + _pooled(device) for device in devices) * _GPU_SHARE)


def _pooled(device: int) -> int:
    """What torch holds of a GPU's memory for later use."""
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def row_bytes(model: "PreTrainedModel", answer: int = 0) -> Callable[[int], int]:
    """What a row of some length takes in a forward pass without gradients, and in the generation of an answer.

    Per token, 4 h + 3 i values of the layer that is at work (h hidden size, i intermediate size). Its mask is one byte
    for each pair of tokens. Keys and values of all layers are kept for prompt and answer while one is generated.

    Args:
        model: the language model.
        answer: tokens to generate after a row; 0: none, and nothing is kept.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    cache = cached_values(model) if answer else 0

    def of(length: int) -> int:
        values = length * (4 * hidden + 3 * inner) + (length + answer) * cache
        return int(values * model.dtype.itemsize + length * length)

    return of


def cached_values(model: "PreTrainedModel") -> int:
    """Values of keys and values that are kept for each token; where the layers' names do not tell, those of attention
    whose keys are as wide as what it reads."""
    widths = [
        int(module.out_features)
        for name, module in model.named_modules()
        if name.endswith((".k_proj", ".v_proj")) and hasattr(module, "out_features")
    ]
    config = model.config.get_text_config()
    return sum(widths) or 2 * config.num_hidden_layers * config.hidden_size


def padded(rows: list[list[int]], value: int, *, left: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as one tensor, filled up with `value`, and the mask of its own tokens; shape [rows, longest]."""
    longest = max(len(row) for row in rows)
    filled, mask = [], []
    for row in rows:
        gap, one = [value] * (longest - len(row)), [1] * len(row)
        filled.append(gap + row if left else row + gap)
        mask.append([0] * len(gap) + one if left else one + [0] * len(gap))
    return torch.tensor(filled, device=device), torch.tensor(mask, device=device)
