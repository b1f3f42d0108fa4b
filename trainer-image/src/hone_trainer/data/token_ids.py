"""A text as the token ids of a fast tokenizer, without what transformers adds to each call: a third of its time."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

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
    if (encode := _encoder(tokenizer)) is not None:
        return encode(text, special)[0]()
    options = {} if special else {"add_special_tokens": False}
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def ids_and_offsets(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[list[int], Offsets]:
    """Ids of a text without special tokens of the tokenizer's own, and the characters of each."""
    if (encode := _encoder(tokenizer)) is not None:
        ids, offsets = encode(text, False)
        return ids(), offsets()
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


_Encoded = tuple[Callable[[], list[int]], Callable[[], Offsets]]


@lru_cache(maxsize=16)
def _encoder(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str, bool], _Encoded] | None:
    """The encoder below a tokenizer; None if the tokenizer's own class does something else to a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None

    def encode(text: str, special: bool) -> _Encoded:
        encoding = backend.encode(text, add_special_tokens=special)
        return lambda: list(encoding.ids), lambda: list(encoding.offsets)

    probe = _PROBE.join(["", *map(str, tokenizer.all_special_tokens), ""])
    for special in (True, False):
        # The call also switches off cutting and padding, which the tokenizer's file may set.
        expected = tokenizer(probe, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids, offsets = encode(probe, special)
        if (ids(), offsets()) != (list(expected["input_ids"]), list(expected["offset_mapping"])):
            return None
    return encode
