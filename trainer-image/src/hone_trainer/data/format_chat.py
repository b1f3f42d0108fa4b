"""Rows that are conversations: Messages, ShareGPT and Alpaca."""

from typing import Any

from hone_trainer.data.conversation import Message
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

ROLES = ("system", "developer", "user", "assistant")

_SENDERS = {"human": "user", "gpt": "assistant", "system": "system"}
"""ShareGPT's names of the roles."""


def from_messages(row: dict[str, Any]) -> Sample:
    return _conversation(parse_messages(row["messages"], "messages"), "messages")


def from_share_gpt(row: dict[str, Any]) -> Sample:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise RowFault("`conversations` is not a list of turns")
    if not turns:
        raise RowFault("`conversations` is empty")
    if all(isinstance(turn, dict) and "role" in turn for turn in turns):
        raise RowFault(
            "`conversations` has turns with `role` (format Messages): set spec.dataset.columns to "
            "{messages: conversations}"
        )
    return _conversation((*_system(row), *(_turn(turn) for turn in turns)), "conversations")


def from_alpaca(row: dict[str, Any]) -> Sample:
    # One user turn, so that the chat template applies; instruction and input are joined as LLaMA-Factory joins them.
    question = "\n".join(text for text in (_text(row, "instruction"), _text(row, "input", "")) if text.strip())
    output = _text(row, "output")
    if not question:
        raise RowFault("`instruction` is empty")
    if not output.strip():
        raise RowFault("`output` is empty")
    if row.get("history"):
        raise RowFault("`history` is set: write the whole conversation as `messages`")
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": output})
    return _conversation((*_system(row), *turns), "instruction")


def _text(row: dict[str, Any], column: str, default: str | None = None) -> str:
    """A column's text; where it is null or absent, `default`, if one is set."""
    value = row.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise RowFault(f"`{column}` is not a string")
    return value


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The system turn, from the column `system`; none if the column is empty."""
    content = _text(row, "system", "")
    return ({"role": "system", "content": content},) if content.strip() else ()


def _turn(turn: Any) -> Message:
    """One of ShareGPT's turns as a message."""
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise RowFault("`conversations` holds something that is not a turn with `from` and `value`")
    sender, value = turn["from"], turn["value"]
    if not isinstance(sender, str) or sender not in _SENDERS:
        raise RowFault(f"`conversations` has a `from` other than {', '.join(_SENDERS)}")
    return _message({"role": _SENDERS[sender], "content": value}, "conversations")


def _conversation(messages: tuple[Message, ...], column: str) -> Sample:
    """A conversation whose completion is its last answer."""
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault(f"no assistant turn in `{column}`")
    sample = Sample(messages=messages)
    if sample.last_assistant == 0:
        raise RowFault(f"there is no turn before the assistant's in `{column}`")
    return Sample(messages=messages, completion_start=sample.last_assistant)


def parse_messages(value: Any, column: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowFault(f"`{column}` is not a list of messages")
    if not value:
        raise RowFault(f"`{column}` is empty")
    return tuple(_message(item, column) for item in value)


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise RowFault(f"`{column}` has a role other than {', '.join(ROLES)}")
    if item.get("tool_calls"):
        raise RowFault(f"`{column}` has tool calls, which are not supported")
    if not isinstance(content, str):
        raise RowFault(f"`{column}` has a message whose `content` is not a string")
    if role == "assistant" and not content.strip():
        raise RowFault(f"`{column}` has an empty assistant turn")
    return {"role": role, "content": content}
