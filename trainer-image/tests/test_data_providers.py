"""Rows of hosted services: what is awkward in them is refused or counted, and never fails."""

import random
from typing import Any

import pytest

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import detect, to_sample, used_columns
from hone_trainer.data.keys import unused_in
from hone_trainer.data.providers import standard
from hone_trainer.protocol.errors import RowFault

ASK, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
PAIR = {
    "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [ANSWER],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
    "id": 7,
}
CONVERSE: dict[str, Any] = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "s"}],
    "messages": [
        {"role": "user", "content": [{"text": "a"}, {"text": " and b"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                {"text": "Wait."},
                {"toolUse": {"toolUseId": "1", "name": "f", "input": {"x": 1}}},
                {"toolUse": {"toolUseId": "2", "name": "g", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "1", "content": [{"json": {"y": 2}}]}},
                {"toolResult": {"toolUseId": "2", "content": [{"text": "none"}]}},
                {"text": "Next, please."},
            ],
        },
        {"role": "assistant", "content": [{"text": "Done."}]},
    ],
    "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}, {"toolSpec": {"name": "g"}}], "toolChoice": {"auto": {}}},
}


def test_keys_that_nothing_reads_are_still_counted() -> None:
    row = standard(PAIR)
    assert {*unused_in(row, used_columns(row, DataFormat.PREFERENCE))} == {"id", "parallel_tool_calls"}
    converse = standard({**CONVERSE, "toolConfig": {**CONVERSE["toolConfig"], "toolChoice": {"tool": {"name": "f"}}}})
    assert {*unused_in(converse, used_columns(converse, DataFormat.MESSAGES))} == {"toolChoice"}


def test_a_bedrock_message_can_hold_several_results_calls_and_texts() -> None:
    sample = to_sample(standard(CONVERSE), DataFormat.MESSAGES)
    assert [(m["role"], m["content"]) for m in sample.messages] == [
        ("system", "s"),
        ("user", "a and b"),
        ("assistant", "Wait."),
        ("tool", '{"y": 2}'),
        ("tool", "none"),
        ("user", "Next, please."),
        ("assistant", "Done."),
    ]
    assert [call["function"]["name"] for call in sample.messages[2]["tool_calls"]] == ["f", "g"]
    assert sample.messages[2]["reasoning_content"] == "hm"
    assert [tool["function"]["name"] for tool in sample.tools] == ["f", "g"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"toolConfig": "f"}, "`toolConfig` is set"),
        ({"messages": [{"role": "user", "content": [{"image": {"format": "png"}}]}, ANSWER]}, "parts that are no text"),
        ({"messages": [{"role": "user", "content": [{"text": "a", "video": {}}]}, ANSWER]}, "parts that are no text"),
        ({"toolConfig": {"tools": [{"toolSpec": 1}]}}, "is not a list of tools"),
    ],
)
def test_what_bedrock_rows_have_and_hone_does_not_is_refused(change: dict[str, Any], message: str) -> None:
    row = standard({**CONVERSE, **change})
    with pytest.raises(RowFault, match=message):
        to_sample(row, DataFormat.MESSAGES)


def test_mutated_rows_are_read_or_refused() -> None:
    chance = random.Random(1)
    values: tuple[Any, ...] = (None, 1, "", "x", [], {}, [None], [1], {"a": 1}, [[]], True)

    def mutated(value: Any) -> Any:
        if chance.random() < 0.06:
            return chance.choice(values)
        if isinstance(value, dict):
            return {name: mutated(held) for name, held in value.items() if chance.random() > 0.02}
        return [mutated(held) for held in value] if isinstance(value, list) else value

    read = 0
    rft = {"messages": [ASK], "reference_answer": "x", "ground_truth": 3}
    for i in range(2000):
        whole = (PAIR, CONVERSE, rft)[i % 3]
        row = standard({name: mutated(held) for name, held in whole.items()})
        for objective in (Objective.SFT, Objective.DPO, Objective.GRPO):
            format = detect(row, OBJECTIVES[objective].data.formats)
            if format is None:
                continue
            try:
                to_sample(row, format)
                read += 1
            except RowFault:
                pass
    assert read > 500


@pytest.mark.parametrize(
    ("row", "objective", "format"),
    [
        ({"messages": [ASK]}, Objective.GRPO, DataFormat.PROMPT),
        ({"messages": [ASK, ANSWER]}, Objective.GRPO, DataFormat.MESSAGES),
        ({"messages": [ASK]}, Objective.DISTILLATION, DataFormat.PROMPT),
        ({"messages": [ASK, ANSWER]}, Objective.DISTILLATION, DataFormat.MESSAGES),
        ({"messages": [ASK], "prompt": "a"}, Objective.GRPO, DataFormat.PROMPT),
        ({"messages": [ASK]}, Objective.SFT, DataFormat.MESSAGES),
    ],
)
def test_a_conversation_without_an_answer_is_a_prompt(
    row: dict[str, Any], objective: Objective, format: DataFormat
) -> None:
    assert detect(row, OBJECTIVES[objective].data.formats) is format


@pytest.mark.parametrize("value", ["5", 5, 5.0])
def test_what_answers_are_compared_with_may_be_a_number_under_another_name(value: Any) -> None:
    for name in ("reference_answer", "ground_truth"):
        row = {"messages": [ASK], name: value}
        assert to_sample(row, DataFormat.PROMPT).references == ("5",)
        assert [*unused_in(row, used_columns(row, DataFormat.PROMPT))] == []
