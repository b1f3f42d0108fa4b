"""Rows as other tools and services document them, and how Hone reads each: the table of docs/coming-from.md.

Every row is our own, in the shape that the tool's documentation gives.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hone.contract.objectives import OBJECTIVES, Objective
from hone_trainer.data.checks import check_format
from hone_trainer.data.formats import detect, to_sample
from hone_trainer.data.providers import standard
from hone_trainer.data.read import rename
from hone_trainer.protocol.errors import BadInput, RowFault

Row = dict[str, Any]
_ASK, _ANSWER = {"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "Yes."}
_WORSE = {"role": "assistant", "content": "Who knows."}
_PARAMETERS = {"type": "object", "properties": {"shop": {"type": "string"}}}
_TOOL = {"type": "function", "function": {"name": "hours", "description": "Finds hours.", "parameters": _PARAMETERS}}
_CALL = {"id": "c1", "type": "function", "function": {"name": "hours", "arguments": '{"shop": "A"}'}}
_CALLS = {"role": "assistant", "tool_calls": [_CALL]}
_RESULT = {"role": "tool", "tool_call_id": "c1", "content": "9 to 5"}


@dataclass(frozen=True)
class Shape:
    """A row of a tool's documentation.

    Attributes:
        tool: whose.
        title: what the tool calls it.
        row: an example.
        columns: `spec.dataset.columns` that it needs.
    """

    tool: str
    title: str
    row: Row
    columns: dict[str, str] | None = None


def _pair(worse: Row = _WORSE) -> Row:
    return {"input": {"messages": [_ASK]}, "preferred_output": [_ANSWER], "non_preferred_output": [worse]}


_BEDROCK = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"text": "Is it open?"}]},
        {"role": "assistant", "content": [{"text": "Yes."}]},
    ],
}
_BEDROCK_TOOLS = {
    "schemaVersion": "bedrock-conversation-2024",
    "messages": [
        {"role": "user", "content": [{"text": "Is it open?"}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c1", "name": "hours", "input": {"shop": "A"}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "9 to 5"}]}}]},
        {"role": "assistant", "content": [{"text": "Yes."}]},
    ],
    "toolConfig": {"tools": [{"toolSpec": {"name": "hours", "inputSchema": {"json": _PARAMETERS}}}]},
}

_HERMES = [
    {"from": "system", "value": "Call functions. <tools>[" + json.dumps(_TOOL) + "]</tools>"},
    {"from": "human", "value": "Is it open?"},
    {"from": "gpt", "value": '<tool_call>{"name": "hours", "arguments": {"shop": "A"}}</tool_call>'},
    {"from": "tool", "value": "<tool_response>9 to 5</tool_response>"},
    {"from": "gpt", "value": "Yes."},
]

SHAPES = (
    Shape("OpenAI", "supervised", {"messages": [_ASK, _ANSWER]}),
    Shape("OpenAI", "supervised, a turn of weight 0", {"messages": [_ASK, {**_WORSE, "weight": 0}, _ASK, _ANSWER]}),
    Shape(
        "OpenAI",
        "tools",
        {"messages": [_ASK, _CALLS, _RESULT, _ANSWER], "tools": [_TOOL], "parallel_tool_calls": False},
    ),
    Shape("OpenAI", "preference (DPO)", _pair()),
    Shape("OpenAI", "reinforcement", {"messages": [_ASK], "reference_answer": "yes"}),
    Shape("OpenAI", "images", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, _ANSWER]}),
    Shape("Together", "conversational", {"messages": [_ASK, {**_ANSWER, "reasoning": "A sign says so."}]}),
    Shape("Together", "instruction", {"prompt": "Is it open?", "completion": " Yes."}),
    Shape("Together", "generic text", {"text": "The shop opens at nine."}),
    Shape("Together", "preference", _pair()),
    Shape("Fireworks", "chat", {"messages": [_ASK, {**_ANSWER, "weight": 1}]}),
    Shape("Fireworks", "DPO", _pair()),
    Shape("Fireworks", "reinforcement", {"messages": [_ASK], "ground_truth": "yes"}),
    Shape("Mistral", "instruct", {"messages": [_ASK, _ANSWER]}),
    Shape("Mistral", "function calling", {"messages": [_ASK, _CALLS, _RESULT, _ANSWER], "tools": [_TOOL]}),
    Shape("Mistral", "pretraining", {"text": "The shop opens at nine."}),
    Shape("Bedrock", "Converse", _BEDROCK),
    Shape("Bedrock", "Converse with tools", _BEDROCK_TOOLS),
    Shape("Bedrock", "prompt and completion", {"prompt": "Is it open?", "completion": " Yes."}),
    Shape("Bedrock", "messages with system", {"system": "Be brief.", "messages": [_ASK, _ANSWER]}),
    Shape("Bedrock", "continued pre-training", {"input": "The shop opens at nine."}, {"text": "input"}),
    Shape("Bedrock", "reinforcement", {"messages": [_ASK], "reference_answer": "yes"}),
    Shape(
        "LLaMA-Factory",
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Is it open?"}, {"from": "gpt", "value": "Yes."}]},
    ),
    Shape("LLaMA-Factory", "alpaca", {"instruction": "Is it open?", "input": "", "output": "Yes."}),
    Shape("LLaMA-Factory", "KTO", {"messages": [_ASK, _ANSWER], "label": True}),
    Shape(
        "LLaMA-Factory", "KTO, alpaca", {"instruction": "Is it open?", "input": "", "output": "Yes.", "kto_tag": True}
    ),
    Shape("axolotl", "chat_template", {"messages": [_ASK, {**_ANSWER, "training": True}]}),
    Shape("axolotl", "completion", {"text": "The shop opens at nine."}),
    Shape("TRL", "language modeling", {"text": "The shop opens at nine."}),
    Shape("TRL", "prompt-completion", {"prompt": [_ASK], "completion": [_ANSWER]}),
    Shape("TRL", "preference", {"prompt": [_ASK], "chosen": [_ANSWER], "rejected": [_WORSE]}),
    Shape("TRL", "unpaired preference", {"prompt": [_ASK], "completion": [_ANSWER], "label": True}),
    Shape("TRL", "prompt only", {"prompt": [_ASK]}),
    Shape("Hermes", "function calling", {"conversations": _HERMES}),
    Shape("Hugging Face", "text classification", {"text": "It broke.", "label": 1}),
    Shape("Hugging Face", "several classes", {"text": "It came late.", "labels": ["late"]}),
    Shape(
        "Kaggle",
        "several classes",
        {"comment": "It came late.", "late": 1, "rude": 0},
        {"text": "comment", "label": "late,rude"},
    ),
)


def outcome(shape: Shape, objective: Objective) -> str:
    """The format that a row is read as, or the words with which it is refused."""
    row = standard(rename(shape.row, shape.columns or {}))
    formats = OBJECTIVES[objective].data.formats
    format = detect(row, formats)
    if format is None:
        return "refused: a column is missing"
    try:
        check_format(objective, format)
        to_sample(row, format)
    except BadInput as error:
        return f"refused: {error.field} {error.message}".replace(objective.value, "this objective", 1)
    except RowFault as fault:
        return f"bad row: {fault}"
    return f"`{format}`"


def outcomes(shape: Shape) -> Iterator[tuple[str, list[Objective]]]:
    """What becomes of a row, each with its objectives; first how it is read."""
    groups: dict[str, list[Objective]] = {}
    for objective in Objective:
        groups.setdefault(outcome(shape, objective), []).append(objective)
    yield from sorted(groups.items(), key=lambda group: not group[0].startswith("`"))


def cells() -> Iterator[list[str]]:
    """The rows of the table: tool, row, and what becomes of it with which objectives."""
    for shape in SHAPES:
        text = json.dumps(shape.row)
        needs = f" with `columns: {json.dumps(shape.columns)}`" if shape.columns else ""
        for words, objectives in outcomes(shape):
            yield [shape.tool, shape.title, f"`{text}`{needs}", ", ".join(objectives), words]
            text, needs = "", ""
