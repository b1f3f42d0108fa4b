"""Rows as people write them: which are read, and what is said of those that are not."""

from typing import Any

import pytest

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import detect, to_sample
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import prompt_key, row_key
from hone_trainer.protocol.errors import RowFault

USER = {"role": "user", "content": "Is it good?"}
ANSWER = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"prompt": "a"}, "no column `messages`", id="another format's columns"),
        pytest.param({"messages": "hello"}, "`messages` is not a list of messages", id="a string for a list"),
        pytest.param({"messages": []}, "`messages` is empty", id="no message"),
        pytest.param({"messages": ["hello"]}, "not a message with `role` and `content`", id="a string for a message"),
        pytest.param({"messages": [{"role": "user"}, ANSWER]}, "not a message with", id="a message without content"),
        pytest.param({"messages": [{"role": "bard", "content": "a"}, ANSWER]}, "a role other than", id="unknown role"),
        pytest.param({"messages": [{"role": ["user"], "content": "a"}, ANSWER]}, "a role other than", id="role a list"),
        pytest.param({"messages": [{"role": "user", "content": 3}, ANSWER]}, "is not a string", id="a number"),
        pytest.param({"messages": [{"role": "user", "content": None}, ANSWER]}, "is null", id="null content"),
        pytest.param({"messages": [USER, {"role": "assistant", "content": " "}]}, "empty assistant", id="blank answer"),
        pytest.param({"messages": [USER]}, "no assistant turn in `messages`", id="no answer"),
        pytest.param({"messages": [ANSWER]}, "no turn before the assistant's", id="an answer to nothing"),
        pytest.param({"messages": [USER, ANSWER], "tools": [{}]}, "not a list of tools", id="tools"),
        pytest.param({"messages": [USER, {**ANSWER, "tool_calls": [{}]}]}, "a tool call without", id="a tool call"),
    ],
)
def test_a_bad_conversation_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.MESSAGES)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"prompt": "a"}, "no column `completion`", id="no completion"),
        pytest.param({"completion": "a"}, "no column `prompt`", id="no prompt"),
        pytest.param({"prompt": "", "completion": "b"}, "`prompt` is empty", id="empty prompt"),
        pytest.param({"prompt": "a", "completion": "\n"}, "`completion` is empty", id="blank completion"),
        pytest.param({"prompt": "a", "completion": [ANSWER]}, "must both be", id="a string and a list"),
        pytest.param({"prompt": "a", "completion": 1}, "must both be", id="a number for an answer"),
        pytest.param({"prompt": [USER], "completion": [USER]}, "no assistant turn in `completion`", id="no answer"),
    ],
)
def test_a_bad_completion_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.PROMPT_COMPLETION)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"text": "a"}, "no column `label`", id="no label"),
        pytest.param({"text": ["a"], "label": "x"}, "`text` is not a string", id="a list for a text"),
        pytest.param({"text": " ", "label": "x"}, "`text` is empty", id="blank text"),
        pytest.param({"text": "a", "label": None}, "neither a string nor a number", id="null for a label"),
        pytest.param({"text": "a", "label": " "}, "`label` is empty", id="blank label"),
        pytest.param({"text": "a", "label": "x" * 129}, "more than 128 characters", id="a text for a label"),
    ],
)
def test_a_bad_label_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.TEXT_LABEL)
    assert reason in str(fault.value)


HUMAN, GPT = {"from": "human", "value": "Is it good?"}, {"from": "gpt", "value": "Yes."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"conversations": "hello"}, "`conversations` is not a list of messages", id="a string for a list"),
        pytest.param({"conversations": []}, "`conversations` is empty", id="no turn"),
        pytest.param({"conversations": [HUMAN]}, "no assistant turn in `conversations`", id="no answer"),
        pytest.param({"conversations": [GPT]}, "no turn before the assistant's", id="an answer to nothing"),
        pytest.param({"conversations": [HUMAN, "x"]}, "not a message with", id="a string for a turn"),
        pytest.param({"conversations": [HUMAN, {"from": "gpt"}]}, "not a turn with `from` and `value`", id="no value"),
        pytest.param({"conversations": [{"from": "bard", "value": ""}]}, "other than human, gpt, system", id="bard"),
        pytest.param({"conversations": [{"from": [], "value": ""}]}, "other than human, gpt, system", id="no sender"),
        pytest.param({"conversations": [HUMAN, {**GPT, "value": 1}]}, "is not a string", id="a number"),
        pytest.param({"conversations": [HUMAN, {**GPT, "value": " "}]}, "empty assistant turn", id="blank answer"),
        pytest.param({"conversations": [HUMAN, GPT], "system": 1}, "`system` is not a string", id="system"),
        pytest.param({"conversations": [HUMAN, GPT], "tools": "[{}]"}, "not a list of tools", id="tools"),
    ],
)
def test_a_bad_row_of_sharegpt_s_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.SHARE_GPT)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"instruction": "a"}, "no column `output`", id="no output"),
        pytest.param({"instruction": " ", "output": "b"}, "`instruction` is empty", id="nothing asked"),
        pytest.param({"instruction": "a", "output": "\n"}, "`output` is empty", id="blank output"),
        pytest.param({"instruction": "a", "output": None}, "`output` is not a string", id="null"),
        pytest.param({"instruction": "a", "input": 1, "output": "b"}, "`input` is not a string", id="a number"),
        pytest.param({"instruction": "a", "output": "b", "history": "q"}, "not a list of pairs", id="no list"),
        pytest.param({"instruction": "a", "output": "b", "history": [["q"]]}, "not a list of pairs", id="history"),
        pytest.param({"instruction": "a", "output": "b", "history": [["q", " "]]}, "an empty question", id="no answer"),
    ],
)
def test_a_bad_row_of_alpaca_s_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.ALPACA)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("row", "question"),
    [
        pytest.param({"instruction": "Greet.", "input": "the cat"}, "Greet.\nthe cat", id="with input"),
        pytest.param({"instruction": "Greet.", "input": ""}, "Greet.", id="empty input"),
        pytest.param({"instruction": "Greet.", "input": None, "history": []}, "Greet.", id="null input"),
        pytest.param({"instruction": "", "input": "the cat"}, "the cat", id="input alone"),
    ],
)
def test_alpaca_s_rows_become_one_turn(row: dict[str, Any], question: str) -> None:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": "Hi."})
    assert to_sample({**row, "output": "Hi."}, DataFormat.ALPACA) == Sample(messages=turns, completion_start=1)


def test_alpaca_s_history_is_the_turns_before() -> None:
    row = {"instruction": USER["content"], "output": "Yes.", "history": [["Hi.", "Hello."]], "system": "Be brief."}
    system, *turns = to_sample(row, DataFormat.ALPACA).messages
    before = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    assert (system["role"], turns) == ("system", [*before, USER, ANSWER])


def test_alpaca_s_history_may_be_the_text_of_a_list_as_tables_have_it() -> None:
    row = {"instruction": "a", "output": "b"}
    for text, history in (("[]", []), ('[["q", "r"]]', [["q", "r"]]), ("", [])):
        expected = to_sample({**row, "history": history}, DataFormat.ALPACA)
        assert to_sample({**row, "history": text}, DataFormat.ALPACA) == expected


def test_sharegpt_s_turns_become_a_conversation_with_the_system_s_column_first() -> None:
    messages = ({"role": "system", "content": "Be brief."}, USER, ANSWER)
    row = {"conversations": [HUMAN, GPT], "system": "Be brief.", "id": 1}
    assert to_sample(row, DataFormat.SHARE_GPT) == Sample(messages=messages, completion_start=2)
    turn = {"from": "system", "value": "Be brief."}
    assert to_sample({"conversations": [turn, HUMAN, GPT]}, DataFormat.SHARE_GPT).messages == messages
    assert to_sample({"conversations": [*messages]}, DataFormat.SHARE_GPT).messages == messages
    assert to_sample({"messages": [turn, HUMAN, GPT]}, DataFormat.MESSAGES).messages == messages


def test_a_label_is_a_name_or_a_number() -> None:
    assert to_sample({"text": " a ", "label": " x "}, DataFormat.TEXT_LABEL) == Sample(prompt=" a ", label="x")
    assert to_sample({"text": "a", "label": 3}, DataFormat.TEXT_LABEL) == Sample(prompt="a", label=3)


def test_messages_become_a_conversation_whose_completion_is_the_last_answer() -> None:
    row = {"messages": [USER, ANSWER, USER, {**ANSWER, "name": "x"}], "id": 7}
    assert to_sample(row, DataFormat.MESSAGES) == Sample(messages=(USER, ANSWER, USER, ANSWER), completion_start=3)


def test_prompt_and_completion_may_be_lists_of_messages() -> None:
    row = {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}
    sample = to_sample(row, DataFormat.PROMPT_COMPLETION)
    assert sample == Sample(messages=(USER, ANSWER, USER, ANSWER), completion_start=3)


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": []}, DataFormat.MESSAGES),
        ({"prompt": "", "completion": ""}, DataFormat.PROMPT_COMPLETION),
        ({"messages": [], "prompt": "", "completion": ""}, DataFormat.MESSAGES),
        ({"messages": None, "prompt": "", "completion": ""}, DataFormat.PROMPT_COMPLETION),
        ({"conversations": []}, DataFormat.SHARE_GPT),
        ({"instruction": "", "output": ""}, DataFormat.ALPACA),
        ({"instruction": "", "response": ""}, None),
        ({"text": "", "label": 1}, DataFormat.TEXT_LABEL),
        ({"text": ""}, DataFormat.TEXT),
        ({"prompt": "", "answer": ""}, DataFormat.PROMPT),
        ({}, None),
    ],
)
def test_the_format_is_told_by_the_columns(row: dict[str, Any], format: DataFormat | None) -> None:
    assert detect(row) is format


def test_a_prompt_alone_is_a_format_only_where_it_is_wanted() -> None:
    row = {"prompt": "one, two,", "response": " three"}
    assert detect(row, OBJECTIVES[Objective.SFT].data.formats) is None
    assert detect({**row, "completion": " three"}, [DataFormat.PROMPT]) is DataFormat.PROMPT


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        pytest.param({"prompt": "a"}, Sample(prompt="a"), id="nothing to compare to"),
        pytest.param({"prompt": "a", "reference": None}, Sample(prompt="a"), id="null in a table"),
        pytest.param({"prompt": "a", "reference": "b"}, Sample(prompt="a", references=("b",)), id="one reference"),
        pytest.param(
            {"prompt": [USER], "reference": ["b", "c"]},
            Sample(messages=(USER,), completion_start=1, references=("b", "c")),
            id="a conversation with two",
        ),
    ],
)
def test_a_prompt_may_have_references(row: dict[str, Any], sample: Sample) -> None:
    assert to_sample(row, DataFormat.PROMPT) == sample


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"reference": "a"}, "no column `prompt`", id="no prompt"),
        pytest.param({"prompt": None}, "neither a string nor a list of messages", id="null"),
        pytest.param({"prompt": " "}, "`prompt` is empty", id="blank prompt"),
        pytest.param({"prompt": []}, "`prompt` is empty", id="no message"),
        pytest.param({"prompt": [USER, ANSWER]}, "ends with an assistant turn", id="answered already"),
        pytest.param({"prompt": "a", "reference": 3}, "neither a string nor a list of strings", id="a number"),
        pytest.param({"prompt": "a", "reference": ["b", 3]}, "neither a string nor a list", id="a number in a list"),
        pytest.param({"prompt": "a", "reference": ""}, "`reference` is empty", id="blank reference"),
    ],
)
def test_a_bad_prompt_is_told_apart_by_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, DataFormat.PROMPT)
    assert reason in str(fault.value)


@pytest.mark.parametrize("prompt", ["Is it good?", [USER]], ids=["text", "chat"])
def test_prompts_that_differ_only_in_their_references_share_a_split_but_are_no_duplicates(prompt: Any) -> None:
    first, second = (to_sample({"prompt": prompt, "reference": answer}, DataFormat.PROMPT) for answer in "ab")
    assert prompt_key(first) == prompt_key(second)
    assert row_key(first) != row_key(second)


@pytest.mark.parametrize(
    ("row", "objective", "format"),
    [
        ({"messages": [], "chosen": [], "rejected": []}, Objective.DPO, DataFormat.PREFERENCE),
        ({"messages": [], "chosen": [], "rejected": []}, Objective.SFT, DataFormat.MESSAGES),
        ({"messages": [], "text": "", "label": "a"}, Objective.CLASSIFICATION, DataFormat.TEXT_LABEL),
        ({"prompt": "", "completion": "", "label": False}, Objective.SFT, DataFormat.UNPAIRED_PREFERENCE),
        ({"prompt": "", "completion": "", "label": 0}, Objective.SFT, DataFormat.PROMPT_COMPLETION),
        ({"prompt": "", "completion": "", "label": 0}, Objective.KTO, DataFormat.UNPAIRED_PREFERENCE),
        ({"prompt": "", "completion": "", "label": "bad"}, Objective.KTO, DataFormat.UNPAIRED_PREFERENCE),
        ({"prompt": "", "completion": "", "label": None}, Objective.KTO, DataFormat.UNPAIRED_PREFERENCE),
        ({"text": "", "label": None}, Objective.KTO, None),
        ({"prompt": "", "completion": "", "label": None}, Objective.SFT, DataFormat.PROMPT_COMPLETION),
        ({"prompt": "", "completion": "", "label": "1"}, Objective.DPO, DataFormat.UNPAIRED_PREFERENCE),
        ({"prompt": "", "completion": "", "label": 3}, Objective.DPO, DataFormat.PROMPT_COMPLETION),
        ({"messages": []}, Objective.KTO, DataFormat.MESSAGES),
    ],
)
def test_of_several_formats_the_objectives_own_is_told(
    row: dict[str, Any], objective: Objective, format: DataFormat
) -> None:
    assert detect(row, OBJECTIVES[objective].data.formats) is format
