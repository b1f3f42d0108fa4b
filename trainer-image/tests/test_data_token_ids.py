"""Token ids without transformers' own work: the same ids and offsets, whatever the tokenizer's class and file set."""

import copy
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from hone_trainer.data import token_ids
from hone_trainer.data.answer import Tokens, carries_loss
from hone_trainer.data.token_ids import ids_and_offsets

TEXTS = ("", "a", " I bought this kettle.\n\n", "<|im_start|>user\nAh?<|im_end|>", "<|im_end|><|im_end|> x", "灯 \t é")


class Shouting(PreTrainedTokenizerFast):
    """A tokenizer whose class changes the text."""

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._encode_plus(text.upper(), *args, **kwargs)


def changed(tokenizer: Any, change: str) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    if change == "cuts and pads":
        tokenizer.backend_tokenizer.enable_truncation(3)
        tokenizer.backend_tokenizer.enable_padding(length=9)
    if change == "special tokens as text":
        tokenizer.split_special_tokens = True
    if change == "a class of its own":
        tokenizer = Shouting(tokenizer_object=tokenizer.backend_tokenizer)
    return tokenizer


@pytest.mark.parametrize("change", ["none", "cuts and pads", "special tokens as text", "a class of its own"])
def test_ids_and_offsets_are_those_of_the_tokenizer(tiny_tokenizer: Any, change: str) -> None:
    tokenizer, reference = changed(tiny_tokenizer, change), changed(tiny_tokenizer, change)
    for text in TEXTS:
        expected = reference(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids_and_offsets(tokenizer, text) == (expected["input_ids"], expected["offset_mapping"])
        for special in (True, False):
            ids = token_ids.token_ids(tokenizer, text, special=special)
            assert ids == reference(text, add_special_tokens=special)["input_ids"]
    assert (token_ids._encoder(tokenizer) is None) is (change == "a class of its own")


def test_tokens_in_order_and_in_disorder_carry_the_same_loss() -> None:
    in_order = [(0, 2), (2, 2), (2, 5), (5, 9), (9, 9), (9, 12)]
    for low in range(13):
        for high in range(low, 13):
            for first in range(6):
                # One more token, before all others by its place, makes them unordered.
                unordered = Tokens([0] * 7, first, lambda: [*in_order, (-1, -1)])
                expected = carries_loss(unordered, [(low, high)], last=True)[:6]
                assert carries_loss(Tokens([0] * 6, first, lambda: in_order), [(low, high)], last=True) == expected
