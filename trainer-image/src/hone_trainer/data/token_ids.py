"""A text as the token ids of a fast tokenizer, without what transformers adds to each call."""

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Offsets = list[tuple[int, int]]
_PROBE = " A probe,\n\n  of (two) lines and 灯 \t"


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str, *, special: bool) -> list[int]:
    """Ids of a text, the same as `tokenizer(text)` has.

    Args:
        tokenizer: the model's.
        text: any.
        special: whether the special tokens are added that open and close a text.
    """
    if (encoder := _encoder(tokenizer)) is not None:
        return encoder.ids(text, special=special)
    options = {} if special else {"add_special_tokens": False}
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def ids_and_offsets(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[list[int], Offsets]:
    """Ids of a text without special tokens of the tokenizer's own, and the characters of each."""
    if (encoder := _encoder(tokenizer)) is not None:
        return encoder.ids_and_offsets(text, special=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


class _Encoder:
    """The encoder below a tokenizer."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text. Where each token stands is not determined: that takes a fifth of the time."""
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=special)
        return list(encoding.ids)

    def ids_and_offsets(self, text: str, *, special: bool) -> tuple[list[int], Offsets]:
        """Ids of a text, and the characters of each."""
        encoding = self._backend.encode(text, add_special_tokens=special)
        return encoding.ids, encoding.offsets


@lru_cache(maxsize=16)
def _encoder(tokenizer: "PreTrainedTokenizerBase") -> _Encoder | None:
    """The encoder below a tokenizer; None if the tokenizer's own class does something else to a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # One text at a time needs no threads, and a process that has them cannot fork others.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    encoder, probe = _Encoder(backend), _PROBE.join(["", *map(str, tokenizer.all_special_tokens), ""])
    for special in (True, False):
        # The call also switches off cutting and padding, which the tokenizer's file may set.
        expected = tokenizer(probe, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(expected["input_ids"]), list(expected["offset_mapping"])
        if encoder.ids_and_offsets(probe, special=special) != (ids, offsets):
            return None
        if encoder.ids(probe, special=special) != ids:
            return None
    return encoder
