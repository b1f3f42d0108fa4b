"""Tools in the text of messages, as Hermes has them: <tools> of the system, <tool_call> and <tool_response>."""

import ast
import json
import re
from typing import Any

from hone_trainer.data.tools import TOOL_COLUMNS
from hone_trainer.protocol.errors import RowFault

SYSTEM = "hermes_system"
"""The column that the system message of Hermes goes to, where it is counted as not used: the chat template writes the
tools in its own words."""
_TURNS = ("conversations", "messages")
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_MAX_CHARACTERS = 1 << 20
"""Of a text that is read as Python's, which Hermes' own data are."""
_SENDERS = ("gpt", "assistant")


def with_tools(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its tools, calls and results in the format Messages; any other row as it is.

    A row is one of Hermes' if its system message has <tools>, or if it has a column of tools and calls in text.

    Raises:
        RowFault: a call in text is none.
    """
    column = next((name for name in _TURNS if isinstance(row.get(name), list)), None)
    if column is None:
        return row
    messages = [message for message in row[column] if isinstance(message, dict)]
    if len(messages) < len(row[column]) or not any(
        "<tool_call>" in _text(m) or "<tools>" in _text(m) for m in messages
    ):
        return row
    has_column = any(row.get(name) for name in TOOL_COLUMNS)
    tools = _tools(_text(messages[0])) if _role(messages[0]) == "system" else []
    if not tools and not has_column:
        return row
    others = {name: value for name, value in row.items() if name != column}
    if tools:
        others |= {SYSTEM: _text(messages[0]), **({} if has_column else {"tools": tools})}
        messages = messages[1:]
    return {**others, column: [turn for message in messages for turn in _turns(message, column)]}


def _turns(message: dict[str, Any], column: str) -> list[dict[str, Any]]:
    role, text = _role(message), _text(message)
    if role in _SENDERS and "<tool_call>" in text:
        others = {name: value for name, value in message.items() if name not in ("from", "role", "value", "content")}
        calls = [_parsed(block) for block in _CALL.findall(text)]
        if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
            raise RowFault(f"`{column}` has a <tool_call> that is not the JSON of a call with name and arguments")
        rest = _CALL.sub("", text).strip()
        return [{**others, "role": "assistant", "content": rest or None, "tool_calls": calls}]
    if role == "tool" and (results := _RESPONSE.findall(text)):
        return [{"role": "tool", "content": result.strip()} for result in results]
    return [message]


def _role(message: dict[str, Any]) -> Any:
    return message.get("role", message.get("from"))


def _text(message: dict[str, Any]) -> str:
    text = message.get("content", message.get("value"))
    return text if isinstance(text, str) else ""


def _tools(text: str) -> list[dict[str, Any]]:
    """The tools that a system message lists: as one list, or one in each line; none if it lists none."""
    for block in _TOOLS.findall(text):
        parsed = _parsed(block)
        items = parsed if isinstance(parsed, list) else [_parsed(line) for line in block.splitlines() if line.strip()]
        if items and all(isinstance(item, dict) for item in items):
            return items
    return []


def _parsed(text: str) -> Any:
    """The value that a text is the JSON of, or Python's writing of; None for any other text."""
    text = text.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text) if len(text) <= _MAX_CHARACTERS else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
