"""Prompts that the model answers itself: how they are encoded, kept as written, and left out where too long."""

import copy
import json
from typing import Any

import pytest

from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.prompts import PromptEncoder, load_prompt
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import BadInput, RowFault

USER = {"role": "user", "content": "Is it good?"}


def encoder(tokenizer: Any, *, chat: bool = True, limit: int = 64) -> PromptEncoder:
    return PromptEncoder(tokenizer, chat, room=8, limit=limit, train_on="Answers")


def prompt(**row: Any) -> Sample:
    return to_sample(row, DataFormat.PROMPT)


def test_a_conversation_is_encoded_as_a_server_would_and_kept_as_it_was_written(tiny_tokenizer: Any) -> None:
    encoded = encoder(tiny_tokenizer).encode(prompt(prompt=[USER], reference=["Yes.", "Sure."]))
    text = "<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\n"
    assert tiny_tokenizer.decode(encoded.prompt_ids) == text
    assert encoded.length == len(encoded.prompt_ids) + 8
    columns = encoded.columns()
    assert load_prompt(columns["written"]) == [USER]
    assert json.loads(columns["references"]) == ["Yes.", "Sure."]


def test_a_text_is_encoded_without_what_would_close_it(tiny_tokenizer: Any) -> None:
    encoded = encoder(tiny_tokenizer, chat=False).encode(prompt(prompt="Is it good?"))
    assert tiny_tokenizer.decode(encoded.prompt_ids) == "Is it good?"
    assert load_prompt(encoded.columns()["written"]) == "Is it good?"


def test_a_prompt_that_leaves_no_room_for_the_longest_answer_is_left_out(tiny_tokenizer: Any) -> None:
    sample = prompt(prompt=[USER])
    tokens = len(encoder(tiny_tokenizer).encode(sample).prompt_ids)
    assert encoder(tiny_tokenizer, limit=tokens + 8).encode(sample)
    with pytest.raises(
        RowFault, match=f"of {tokens + 7} tokens, 8 are reserved for the answer, which leaves {tokens - 1} for"
    ):
        encoder(tiny_tokenizer, limit=tokens + 7).encode(sample)


def test_conversations_need_a_chat_template(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(BadInput, match="no chat template"):
        encoder(tokenizer)
