"""Tools and tool calls: every way of writing them gives the same row, the model's own template shows them, and the
calls carry loss."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from test_data_templates import CHATML, OF_IMAGES, TEMPLATES_OF_MODELS

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.conversation import HIDES_TOOLS
from hone_trainer.data.encode import Encoder
from hone_trainer.data.formats import to_sample
from hone_trainer.data.keys import unused_in
from hone_trainer.data.pairs import PairEncoder
from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.data.prompts import PromptEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.protocol.errors import RowFault

FUNCTION = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}},
}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
USER = {"role": "user", "content": "Does it rain in Oslo?"}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"rain": true}'}
ANSWER = {"role": "assistant", "content": "Yes, it does."}
EXPECTED = Sample(messages=(USER, CALLS, RESULT, ANSWER), completion_start=3, tools=(TOOL,))
AS_TEXT = {**CALL, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
SHARED = [
    {"from": "human", "value": USER["content"]},
    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
    {"from": "observation", "value": RESULT["content"]},
    {"from": "gpt", "value": ANSWER["content"]},
]


def turns(call: Any, **result: Any) -> list[dict[str, Any]]:
    return [USER, {"role": "assistant", **call}, {**RESULT, **result}, ANSWER]


@pytest.mark.parametrize(
    ("row", "format"),
    [
        pytest.param(
            {"messages": turns({"content": None, "tool_calls": [AS_TEXT]}), "tools": [TOOL]}, "Messages", id="OpenAI's"
        ),
        pytest.param({"messages": turns({"tool_calls": [AS_TEXT]}), "tools": [TOOL]}, "Messages", id="without content"),
        pytest.param(
            {"messages": turns({"content": "", "tool_calls": [CALL]}), "tools": [FUNCTION]}, "Messages", id="bare tools"
        ),
        pytest.param(
            {"messages": turns({"tool_calls": json.dumps([CALL])}), "tools": json.dumps([TOOL])},
            "Messages",
            id="as text",
        ),
        pytest.param(
            {
                "messages": turns({"content": None, "function_call": AS_TEXT["function"]}, role="function"),
                "functions": [FUNCTION],
            },
            "Messages",
            id="older functions",
        ),
        pytest.param({"conversations": SHARED, "tools": json.dumps([FUNCTION])}, "ShareGPT", id="ShareGPT's"),
        pytest.param(
            {
                "messages": turns(
                    {
                        "tool_calls": [
                            {**CALL, "function": {**CALL["function"], "arguments": {"city": "Oslo", "zip": None}}}
                        ]
                    }
                ),
                "tools": [{"type": "function", "function": {**FUNCTION, "strict": None}}],
            },
            "Messages",
            id="a table's nulls",
        ),
    ],
)
def test_every_way_of_writing_tools_gives_the_same_row(row: dict[str, Any], format: str) -> None:
    assert to_sample(row, DataFormat(format)) == EXPECTED


def test_names_and_ids_of_calls_and_results_reach_the_template_and_are_no_unused_keys() -> None:
    row = {
        "messages": turns({"tool_calls": [{**CALL, "id": "c1"}]}, tool_call_id="c1", name="weather"),
        "tools": [TOOL],
    }
    sample = to_sample(row, DataFormat.MESSAGES)
    assert sample.messages[1]["tool_calls"] == [{**CALL, "id": "c1"}]
    assert sample.messages[2] == {**RESULT, "tool_call_id": "c1", "name": "weather"}
    assert not [*unused_in(row, ("messages", "tools"))]
    assert [*unused_in({"messages": [{**USER, "name": "Ann"}]}, ("messages",))] == ["messages[].name"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"tools": "no JSON"}, "not JSON", id="text"),
        pytest.param({"tools": [{"description": "?"}]}, "not a list of tools", id="no name"),
        pytest.param({"tools": [TOOL, FUNCTION]}, "the same name", id="twice"),
        pytest.param({"messages": turns({"tool_calls": [{"function": {}}]})}, "without the name", id="nameless call"),
        pytest.param(
            {"messages": turns({"function_call": {"name": "f", "arguments": "[1]"}})}, "not a JSON object", id="a list"
        ),
        pytest.param({"messages": [{**USER, "tool_calls": [CALL]}, ANSWER]}, "not the assistant's", id="the user's"),
    ],
)
def test_what_is_no_tool_and_no_call_is_a_bad_row(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault, match=reason):
        to_sample({"messages": [USER, ANSWER], **row}, DataFormat.MESSAGES)


def test_tools_next_to_plain_text_and_a_call_that_is_no_json_are_bad_rows() -> None:
    with pytest.raises(RowFault, match="write it as a list of messages"):
        to_sample({"prompt": "a", "completion": "b", "tools": [TOOL]}, DataFormat.PROMPT_COMPLETION)
    with pytest.raises(RowFault, match="not JSON"):
        to_sample({"conversations": [SHARED[0], {**SHARED[1], "value": "f(x)"}]}, DataFormat.SHARE_GPT)
    with pytest.raises(RowFault, match="tools and their calls are read only from `messages`"):
        to_sample({"instruction": "a", "output": "b", "tools": [TOOL]}, DataFormat.ALPACA)


WITH_TOOLS = {
    "qwen2_5",
    "qwen3",
    "qwen3_instruct_2507",
    "llama3_1",
    "llama3_2",
    "glm4moe",
    "qwen3_8",
}
"""Templates that TRL ships and that show tools, calls of one function with an object of arguments, and results."""


def encoder(tokenizer: Any, template: str) -> Encoder:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    return Encoder(tokenizer, TrainOn.ASSISTANT, chat=True)


@pytest.mark.parametrize("path", TEMPLATES_OF_MODELS, ids=lambda path: path.stem)
def test_calls_and_answers_carry_loss_and_tools_and_results_do_not_or_the_template_is_named(
    tiny_tokenizer: Any, path: Path
) -> None:
    tested = encoder(tiny_tokenizer, path.read_text(encoding="utf-8"))
    try:
        encoded = tested.encode(EXPECTED)
    except RowFault:
        assert path.stem not in WITH_TOOLS
        return
    assert path.stem not in OF_IMAGES
    text = tested.decode(encoded, 100_000)
    learned = [part.split("»")[0] for part in text.split("«")[1:]]
    others = [part.split("«")[0] for part in text.split("»")]
    assert "Yes, it does." in learned[-1]
    assert not any("rain" in part for part in learned)
    assert any("Tells the weather." in part for part in others)
    if not tested.warnings():
        assert "Oslo" in learned[0]
        assert "weather" in learned[0]
    ids, _ = tested.prompt(EXPECTED)
    served = encoded.input_ids[: len(ids)] == ids and encoded.labels[len(ids)] != IGNORE_INDEX
    assert served or any("server" in sentence for sentence in tested.warnings())


def test_a_row_that_ends_with_a_call_is_compared_with_it_as_the_template_writes_it(tiny_tokenizer: Any) -> None:
    template = next(path for path in TEMPLATES_OF_MODELS if path.stem == "qwen2_5").read_text(encoding="utf-8")
    sample = to_sample({"messages": [USER, CALLS], "tools": [TOOL]}, DataFormat.MESSAGES)
    tested = encoder(tiny_tokenizer, template)
    reference = tested.reference(sample)
    call = json.loads(reference.partition("<tool_call>")[2].partition("</tool_call>")[0])
    assert call == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert tested.reference(EXPECTED) == ANSWER["content"]


def test_both_answers_of_a_pair_may_be_calls(tiny_tokenizer: Any) -> None:
    template = next(path for path in TEMPLATES_OF_MODELS if path.stem == "qwen2_5").read_text(encoding="utf-8")
    other = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    row = {"prompt": [USER], "chosen": [CALLS], "rejected": [{**CALLS, "tool_calls": [other]}], "tools": [TOOL]}
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = template
    pair = PairEncoder(tokenizer, chat=True)
    text = pair.decode(pair.encode(to_sample(row, DataFormat.PREFERENCE)), 100_000)
    assert "Oslo" in text.split("» rather than «")[0]
    assert "Rome" in text.split("» rather than «")[1]
    assert "Tells the weather." in text.split("«")[0]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER], "tools": [TOOL]},
        {"messages": [USER, CALLS, RESULT, ANSWER]},
        {"messages": [USER, CALLS]},
    ],
    ids=["tools", "results", "a call"],
)
def test_a_template_without_tools_is_named(tiny_tokenizer: Any, row: dict[str, Any]) -> None:
    # It shows the words of results, whatever the role.
    with pytest.raises(RowFault) as fault:
        encoder(tiny_tokenizer, CHATML).encode(to_sample(row, DataFormat.MESSAGES))
    assert str(fault.value) == HIDES_TOOLS


def test_prompts_that_the_model_answers_itself_have_no_tools(tiny_tokenizer: Any) -> None:
    sample = to_sample({"prompt": [USER], "tools": [TOOL]}, DataFormat.PROMPT)
    with pytest.raises(RowFault, match="without calling them"):
        PromptEncoder(tiny_tokenizer, True, room=8, limit=200, train_on="Answers").encode(sample)
