"""Rows as hosted services document them, in Hone's columns: OpenAI's pairs, and Amazon Bedrock's conversations."""

import json
from typing import Any

from hone_trainer.data.hermes import with_tools

_PAIR = ("input", "preferred_output", "non_preferred_output")
"""OpenAI's columns of a prompt and two answers, which Together and Fireworks have as well."""
_SCHEMA = "schemaVersion"
_BEDROCK = "bedrock-conversation"
REFERENCES = ("reference", "reference_answer", "ground_truth")
"""Columns of what an answer is compared with: Hone's, OpenAI's and Bedrock's, and Fireworks'."""


def standard(row: dict[str, Any]) -> dict[str, Any]:
    """The row with Hone's columns if it is one of a hosted service's, or has tools in text; any other row as it is.

    Raises:
        RowFault: as of `with_tools`.
    """
    if str(row.get(_SCHEMA, "")).startswith(_BEDROCK):
        return _of_bedrock(row)
    prompt = row.get("input")
    if all(row.get(name) for name in _PAIR) and isinstance(prompt, dict):
        # Keys of the prompt that nothing reads stay, to be counted or refused as columns.
        others = {name: value for name, value in row.items() if name not in _PAIR}
        inner = {name: value for name, value in prompt.items() if name != "messages"}
        answers = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
        return {**others, **inner, "prompt": prompt.get("messages"), **answers}
    return with_tools(row)


def unanswered(row: dict[str, Any]) -> bool:
    """Whether a row has a conversation that an answer is to follow, as rows of reinforcement fine-tuning have."""
    messages = row.get("messages")
    if row.get("prompt") is not None or not isinstance(messages, list) or not messages:
        return False
    last = messages[-1]
    return isinstance(last, dict) and last.get("role") not in (None, "assistant")


def as_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its prompt and what answers are compared with in Hone's columns; arguments as of `unanswered`."""
    if row.get("prompt") is None and "messages" in row:
        row = {**{name: value for name, value in row.items() if name != "messages"}, "prompt": row["messages"]}
    own = next((name for name in REFERENCES if row.get(name) is not None), None)
    if own is None or own == "reference":
        return row
    value = row[own]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g}" if isinstance(value, float) else str(value)
    return {**{name: value for name, value in row.items() if name != own}, "reference": value}


def _of_bedrock(row: dict[str, Any]) -> dict[str, Any]:
    """A row of Bedrock's Converse format: contents without types, tools in `toolConfig`.

    What cannot be read so stays as it is, to be refused.
    """
    result = {name: value for name, value in row.items() if name != _SCHEMA}
    if isinstance(row.get("system"), list):
        result["system"] = "\n".join(str(part.get("text", "")) for part in row["system"] if isinstance(part, dict))
    if isinstance(row.get("messages"), list):
        result["messages"] = [turn for message in row["messages"] for turn in _turns(message)]
    tools = row["toolConfig"].get("tools") if isinstance(row.get("toolConfig"), dict) else None
    if isinstance(tools, list):
        others = {name: value for name, value in row["toolConfig"].items() if name != "tools"}
        result |= {"tools": [_tool(tool) for tool in tools], "toolConfig": None, **others}
    return result


def _turns(message: Any) -> list[Any]:
    """A message as one of Hone's, after the results of tools in it, which are messages of their own."""
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return [message]
    results, texts, calls, thoughts = [], [], [], []
    for part in parts:
        if "toolResult" in part:
            results.append(_result(part["toolResult"]))
        elif "toolUse" in part:
            calls.append(_call(part["toolUse"]))
        elif "reasoningContent" in part:
            thoughts.append(_reasoning(part["reasoningContent"]))
        elif "type" not in part and set(part) == {"text"}:
            texts.append({"type": "text", **part})
        else:
            texts.append({"type": next((name for name in part if name != "text"), "none"), **part})
    turn = {**message, "content": texts or None}
    if calls:
        turn["tool_calls"] = calls
    if thoughts:
        turn["reasoning_content"] = "\n".join(thoughts)
    return [*results, *([turn] if texts or calls or thoughts or not results else [])]


def _call(use: Any) -> Any:
    if not isinstance(use, dict):
        return use
    function = {"name": use.get("name"), "arguments": use.get("input")}
    return {"id": use.get("toolUseId"), "type": "function", "function": function}


def _result(result: Any) -> dict[str, Any]:
    result = result if isinstance(result, dict) else {}
    content = result.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [str(part["text"]) if "text" in part else json.dumps(part.get("json")) for part in parts]
    return {"role": "tool", "tool_call_id": result.get("toolUseId"), "content": "\n".join(texts)}


def _reasoning(content: Any) -> str:
    text = (content.get("reasoningText") or {}) if isinstance(content, dict) else {}
    return str(text.get("text", "")) if isinstance(text, dict) else str(text)


def _tool(tool: Any) -> Any:
    spec = tool.get("toolSpec") if isinstance(tool, dict) else None
    if not isinstance(spec, dict):
        return tool
    schema = spec.get("inputSchema")
    parameters = schema.get("json") if isinstance(schema, dict) else None
    return {"name": spec.get("name"), "description": spec.get("description"), "parameters": parameters}
