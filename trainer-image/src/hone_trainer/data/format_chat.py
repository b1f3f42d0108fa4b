"""Rows that are conversations: Messages, ShareGPT and Alpaca."""

from typing import Any

from hone_trainer.data.conversation import Message
from hone_trainer.data.sample import Sample
from hone_trainer.data.turns import Turns, filled, parse_turns, unpacked_list
from hone_trainer.protocol.errors import RowFault


def from_messages(row: dict[str, Any]) -> Sample:
    return _conversation(_turns(row, "messages"), "messages")


def from_share_gpt(row: dict[str, Any]) -> Sample:
    return _conversation(_turns(row, "conversations"), "conversations")


def from_alpaca(row: dict[str, Any]) -> Sample:
    output = _text(row, "output")
    question = question_turn(row, "instruction")
    if not question:
        raise RowFault("`instruction` is empty")
    if not output.strip():
        raise RowFault("`output` is empty")
    turns = (*_history(row), *question, {"role": "assistant", "content": output})
    turns = with_system(row, turns, "instruction")
    return Sample(messages=turns, completion_start=len(turns) - 1)


def _history(row: dict[str, Any]) -> tuple[Message, ...]:
    """The turns before, from the column `history`: pairs of a question and its answer, as LLaMA-Factory has them."""
    turns: list[Message] = []
    history = unpacked_list(row.get("history") or [])
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowFault("`history` is not a list of pairs, each of a question and its answer")
        if not all(text.strip() for text in pair):
            raise RowFault("`history` has an empty question or answer")
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return tuple(turns)


def question_turn(row: dict[str, Any], column: str) -> tuple[Message, ...]:
    """The user's turn of a row that has its question in a column, and perhaps more of it in `input`; none if both are
    empty."""
    # One user turn, so that the chat template applies; instruction and input are joined as LLaMA-Factory joins them.
    question = "\n".join(text for text in (_text(row, column), _text(row, "input", "")) if text.strip())
    return ({"role": "user", "content": question},) if question else ()


def with_system(row: dict[str, Any], messages: tuple[Message, ...], column: str) -> tuple[Message, ...]:
    """The messages with the system turn of the column `system` before them; as they are if the column is empty.

    Raises:
        RowFault: they begin with another system turn.
    """
    content = _text(row, "system", "")
    if not content.strip():
        return messages
    first = messages[0]
    if first["role"] not in ("system", "developer"):
        return ({"role": "system", "content": content}, *messages)
    if first["content"].strip() != content.strip():
        raise RowFault(f"`system` is set, but `{column}` begins with another system turn: keep one of them")
    return messages


def require_no_system(row: dict[str, Any], column: str) -> None:
    """Refuse a system turn where the prompt is plain text, which has no turns.

    Raises:
        RowFault: the row has one.
    """
    if filled(row.get("system")):
        raise RowFault(f"`system` is set, but `{column}` is a string: write `{column}` as a list of messages")


def _text(row: dict[str, Any], column: str, default: str | None = None) -> str:
    """A column's text; where it is null or absent, `default`, if one is set."""
    value = row.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise RowFault(f"`{column}` is not a string")
    return value


def _turns(row: dict[str, Any], column: str) -> Turns:
    """The turns of a column, the system turn of another column included."""
    turns = parse_turns(row[column], column)
    messages = with_system(row, turns.messages, column)
    added = len(messages) - len(turns.messages)
    return Turns(messages, frozenset(i + added for i in turns.untrained))


def _conversation(turns: Turns, column: str) -> Sample:
    """A conversation whose completion is its last answer that is to be learned; what comes after it is left out."""
    answers = [i for i, message in enumerate(turns.messages) if message["role"] == "assistant"]
    if not answers:
        raise RowFault(f"no assistant turn in `{column}`")
    learned = [i for i in answers if i not in turns.untrained]
    if not learned:
        raise RowFault(f"no assistant turn in `{column}` is to be learned: each has weight 0, or train or loss false")
    last = learned[-1]
    if last == 0:
        raise RowFault(f"there is no turn before the assistant's in `{column}`")
    end = len(turns.messages) if last == answers[-1] else last + 1
    untrained = frozenset(i for i in turns.untrained if i < end)
    return Sample(messages=turns.messages[:end], completion_start=last, untrained=untrained)
