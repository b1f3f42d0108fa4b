"""Rows with a better and a worse answer: Preference."""

import re
from typing import Any

from hone_trainer.data.format_chat import parse_messages
from hone_trainer.data.sample import Sample, common_length
from hone_trainer.protocol.errors import RowFault

_SAME = "`chosen` and `rejected` are the same"
_NO_PROMPT = "`chosen` and `rejected` begin differently, so there is no common prompt: add a `prompt` column"


def from_preference(row: dict[str, Any]) -> Sample:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    values = [chosen, rejected, *([] if prompt is None else [prompt])]
    if all(isinstance(value, str) for value in values):
        return _text_pair(prompt, chosen, rejected)
    if all(isinstance(value, list) for value in values):
        return _chat_pair(prompt, chosen, rejected)
    if isinstance(prompt, str) and isinstance(chosen, list) and isinstance(rejected, list):
        # As in UltraFeedback: `prompt` repeats the question as text; the answers may be whole conversations or not.
        whole = all(_contains_question(row[column], column, prompt) for column in ("chosen", "rejected"))
        return _chat_pair(None if whole else [{"role": "user", "content": prompt}], chosen, rejected)
    raise RowFault("`prompt`, `chosen` and `rejected` must all be strings or all be lists of messages")


def _contains_question(conversation: list[Any], column: str, question: str) -> bool:
    """Whether a user's turn of it is this question."""
    turns = parse_messages(conversation, column)
    return any(turn["role"] == "user" and turn["content"].strip() == question.strip() for turn in turns)


def _text_pair(prompt: str | None, chosen: str, rejected: str) -> Sample:
    for column, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise RowFault(f"`{column}` is empty")
    if chosen.strip() == rejected.strip():
        raise RowFault(_SAME)
    if prompt is None:
        end = _common_words(chosen, rejected)
        prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        if not prompt.strip():
            raise RowFault(_NO_PROMPT)
    if not prompt.strip():
        raise RowFault("`prompt` is empty")
    return Sample(prompt=prompt, completion=chosen, rejected=rejected)


def _common_words(first: str, second: str) -> int:
    """The length in characters of the words that both texts begin with; both have more text after it."""
    common = common_length(first, second)
    end = 0
    for gap in re.finditer(r"\s+", first[:common]):
        if first[gap.end() :].strip() and second[gap.end() :].strip():
            # A single space goes with the word after it, as in the tokens of most models.
            end = gap.start() if gap.group() == " " else gap.end()
    return end


def _chat_pair(prompt: list[Any] | None, chosen: list[Any], rejected: list[Any]) -> Sample:
    better, worse = parse_messages(chosen, "chosen"), parse_messages(rejected, "rejected")
    if better == worse:
        raise RowFault(_SAME)
    if prompt is None:
        start = common_length(better, worse)
        head, better, worse = better[:start], better[start:], worse[start:]
        if not head:
            raise RowFault(_NO_PROMPT)
    else:
        head = parse_messages(prompt, "prompt")
    for column, answer in (("chosen", better), ("rejected", worse)):
        if not answer or answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            raise RowFault(
                f"`{column}` must begin and end with an assistant turn after the prompt; if both answers contain the "
                "whole conversation, leave out `prompt`"
            )
    return Sample(messages=head + better, completion_start=len(head), rejected=worse)
