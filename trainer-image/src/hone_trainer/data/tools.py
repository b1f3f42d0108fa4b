"""Tools and tool calls as people write them: OpenAI's, its older functions, ShareGPT's, and JSON of each as text."""

import json
from typing import Any

from hone_trainer.protocol.errors import RowFault

TOOL_COLUMNS = ("tools", "functions", "tool_defs")
"""Columns that hold a row's tools."""
CALL_KEYS = ("tool_calls", "function_call")
"""Keys of an assistant's message that hold its calls."""


def parse_tools(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tools of a row as chat templates take them; none where it has none.

    Raises:
        RowFault: they are no list of tools.
    """
    tools: list[dict[str, Any]] = []
    for column in TOOL_COLUMNS:
        value = _decoded(row.get(column), column)
        if not value:
            continue
        items = value if isinstance(value, list) else [value]
        tools += [_tool(_decoded(item, column), column) for item in items]
    names = [tool["function"]["name"] for tool in tools]
    if len({*names}) < len(names):
        raise RowFault("two of the row's tools have the same name")
    return tuple(tools)


def parse_calls(item: dict[str, Any], column: str) -> list[dict[str, Any]]:
    """The calls of an assistant's message as chat templates take them, the arguments as an object; none without any.

    Raises:
        RowFault: they are no calls.
    """
    for key in CALL_KEYS:
        value = _decoded(item.get(key), column)
        if value:
            return [_call(one, column) for one in (value if isinstance(value, list) else [value])]
    return []


def calls_in(text: Any, column: str) -> list[dict[str, Any]]:
    """The calls that ShareGPT has as the text of a turn of their own.

    Raises:
        RowFault: the text is not the JSON of one call or several.
    """
    value = _decoded(text, column)
    if not isinstance(value, dict | list) or not value:
        raise RowFault(f"`{column}` has a function_call whose value is not the JSON of a call with name and arguments")
    return [_call(one, column) for one in (value if isinstance(value, list) else [value])]


def _tool(tool: Any, column: str) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowFault(f"`{column}` is not a list of tools with name, description and parameters")
    return {"type": "function", "function": _without_nulls(function)}


def _call(call: Any, column: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowFault(f"`{column}` has a tool call without the name of a function")
    arguments = function.get("arguments", function.get("parameters"))
    # Templates, and servers before them, take an object; a table has a null for each argument of other rows.
    arguments = _decoded(arguments, column) if isinstance(arguments, str) else _without_nulls(arguments)
    if not isinstance(arguments or {}, dict):
        raise RowFault(f"`{column}` has a tool call whose arguments are not a JSON object")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


def _decoded(value: Any, column: str) -> Any:
    """The value that a text is the JSON of; any other value as it is."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowFault(f"`{column}` has tools or tool calls that are not JSON") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value
