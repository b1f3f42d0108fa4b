"""Rows with a better and a worse answer: Preference."""

import re
from typing import Any

from hone_trainer.data.conversation import Message
from hone_trainer.data.format_chat import question_turn, require_no_system, with_system
from hone_trainer.data.sample import Sample, common_length
from hone_trainer.data.turns import filled, parse_answer, parse_messages
from hone_trainer.protocol.errors import RowFault

_SAME = "`chosen` and `rejected` are the same"
_NO_PROMPT = "`chosen` and `rejected` begin differently, so there is no common prompt: add a `prompt` column"


QUESTIONS = ("instruction", "question")
"""Columns that hold the prompt where there is no `prompt`, as in LLaMA-Factory's rows and in Orca's."""
CONVERSATIONS = ("messages", "conversations")
"""Columns that hold the turns before the answers where there is no `prompt`, as in LLaMA-Factory's rows."""


def from_preference(row: dict[str, Any]) -> Sample:
    prompt, chosen, rejected = row.get("prompt"), *(_as_list(row[column]) for column in ("chosen", "rejected"))
    if prompt is None and (turns := _turns_before(row, chosen)):
        chosen, rejected = (_as_turns(answer) for answer in (chosen, rejected))
        return _chat_pair(row, turns, chosen, rejected)
    values = [chosen, rejected, *([] if prompt is None else [prompt])]
    if all(isinstance(value, str) for value in values):
        require_no_system(row, "chosen" if prompt is None else "prompt")
        return _text_pair(prompt, chosen, rejected)
    if all(isinstance(value, list) for value in values):
        return _chat_pair(row, None if prompt is None else parse_messages(prompt, "prompt"), chosen, rejected)
    if isinstance(prompt, str) and isinstance(chosen, list) and isinstance(rejected, list):
        # As in UltraFeedback: `prompt` repeats the question as text; the answers may be whole conversations or not.
        whole = all(_contains_question(row[column], column, prompt) for column in ("chosen", "rejected"))
        return _chat_pair(row, None if whole else ({"role": "user", "content": prompt},), chosen, rejected)
    raise RowFault("`prompt`, `chosen` and `rejected` must all be strings or all be lists of messages")


def columns_before(row: dict[str, Any]) -> tuple[str, ...]:
    """The columns that a row without `prompt` has its prompt in."""
    if row.get("prompt") is not None:
        return ()
    question = next((name for name in QUESTIONS if filled(row.get(name))), None)
    if question:
        return (question, "input")
    turns = next((name for name in CONVERSATIONS if filled(row.get(name))), None)
    return (turns,) if turns else ()


def _turns_before(row: dict[str, Any], chosen: Any) -> tuple[Message, ...]:
    """The turns of a row's prompt where it is in another column; none where the answers begin with it."""
    name, *_ = (*columns_before(row), None)
    if name in QUESTIONS:
        turns = question_turn(row, name)
        # The answers may be whole conversations with the same question.
        return () if isinstance(chosen, list) and _contains_question(chosen, "chosen", turns[0]["content"]) else turns
    if name is None:
        return ()
    turns = parse_messages(row[name], name)
    if isinstance(chosen, list) and parse_messages(chosen, "chosen")[: len(turns)] == turns:
        return ()
    if turns[-1]["role"] == "assistant":
        raise RowFault(f"`{name}` next to `chosen` ends with an answer: leave out its last turn, or the column")
    return turns


def _as_list(answer: Any) -> Any:
    """A single message as a list of one."""
    return [answer] if isinstance(answer, dict) else answer


def _as_turns(answer: Any) -> Any:
    """An answer in text as the assistant's turn."""
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer


def _contains_question(conversation: Any, column: str, question: str) -> bool:
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


def _chat_pair(row: dict[str, Any], prompt: tuple[Message, ...] | None, chosen: Any, rejected: Any) -> Sample:
    better, worse = parse_answer(chosen, "chosen"), parse_answer(rejected, "rejected")
    if better == worse:
        raise RowFault(_SAME)
    head = prompt or ()
    if prompt is None:
        start = common_length(better, worse)
        head, better, worse = better[:start], better[start:], worse[start:]
        if not head:
            raise RowFault(_NO_PROMPT)
    for column, answer in (("chosen", better), ("rejected", worse)):
        if not answer or answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            raise RowFault(
                f"`{column}` must begin and end with an assistant turn after the prompt; if both answers contain the "
                "whole conversation, leave out `prompt`"
            )
    head = with_system(row, head, "prompt")
    return Sample(messages=head + better, completion_start=len(head), rejected=worse)
