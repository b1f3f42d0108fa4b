"""Tools in the text of messages become tools, calls and results, which the chat template writes."""

import json
from typing import Any

import pytest

from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample, used_columns
from hone_trainer.data.keys import unused_in
from hone_trainer.data.providers import standard
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

TOOL = {"type": "function", "function": {"name": "hours", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = f"You call functions within <tools></tools>. Here they are: <tools>\n{json.dumps([TOOL])}\n</tools> Call them."
CALL = "<tool_call>\n{'arguments': {'shop': 'A', 'day': None}, 'name': 'hours'}\n</tool_call>"


def row(*answers: str, system: str = SYSTEM, **columns: Any) -> dict[str, Any]:
    turns = [
        ("system", system),
        ("human", "Is it open?"),
        ("gpt", answers[0]),
        *(("tool", text) for text in answers[1:]),
    ]
    turns.append(("gpt", "Yes."))
    return {"conversations": [{"from": sender, "value": text} for sender, text in turns], **columns}


def read(value: dict[str, Any]) -> Sample:
    return to_sample(standard(value), DataFormat.SHARE_GPT)


@pytest.mark.parametrize("listed", [json.dumps([TOOL]), str([TOOL]), json.dumps(TOOL), f"{json.dumps(TOOL)}\n"])
def test_tools_calls_and_results_are_read_as_json_or_python(listed: str) -> None:
    sample = read(
        row(f"Let me see. {CALL}", "<tool_response>\n9 to 5\n</tool_response>", system=f"<tools>{listed}</tools>")
    )
    assert [message["role"] for message in sample.messages] == ["user", "assistant", "tool", "assistant"]
    assert [tool["function"]["name"] for tool in sample.tools] == ["hours"]
    call = sample.messages[1]["tool_calls"][0]["function"]
    assert (call["name"], call["arguments"]["shop"]) == ("hours", "A")
    assert (sample.messages[1]["content"], sample.messages[2]["content"]) == ("Let me see.", "9 to 5")


def test_the_system_message_is_counted_as_not_used() -> None:
    value = standard(row(CALL, "<tool_response>9</tool_response><tool_response>5</tool_response>"))
    assert [*unused_in(value, used_columns(value, DataFormat.SHARE_GPT))] == ["hermes_system"]
    sample = to_sample(value, DataFormat.SHARE_GPT)
    assert [message["content"] for message in sample.messages] == ["Is it open?", "", "9", "5", "Yes."]


def test_a_column_of_tools_comes_first() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    assert [tool["function"]["name"] for tool in read(row(CALL, tools=json.dumps([other]))).tools] == ["other"]
    own = read(row(CALL, system="Be brief.", tools=[TOOL]))
    assert own.messages[0]["content"] == "Be brief."
    assert own.messages[2]["tool_calls"]


@pytest.mark.parametrize(
    "value",
    [
        row(CALL, system="Be brief."),
        row("No call.", system="Write <tools> where you need them."),
        {"messages": [{"role": "user", "content": "<tool_call>"}, {"role": "assistant", "content": "What?"}]},
        {"messages": ["<tools>"]},
        {"messages": []},
    ],
)
def test_text_that_only_looks_like_it_stays_text(value: dict[str, Any]) -> None:
    assert standard(value) == value


@pytest.mark.parametrize("block", ["hours(A)", "", "[1]", "{'name': 1}", "__import__('os').getpid()", "(" * 500])
def test_a_call_that_is_none_makes_the_row_bad(block: str) -> None:
    with pytest.raises(RowFault, match="a <tool_call> that is not the JSON of a call"):
        standard(row(f"<tool_call>{block}</tool_call>"))
