"""Keys of rows and messages: each is used, or counted by its name, or makes the row a bad one."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from data_files import GOOD_ROWS, Row
from rows import write_jsonl

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import COLUMNS, detect, to_sample, used_columns
from hone_trainer.data.keys import Unused, unused_in
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import Survey, survey
from hone_trainer.protocol.errors import BadInput, RowFault

USER, ANSWER = {"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}
HUMAN, GPT = {"from": "human", "value": "Is it good?"}, {"from": "gpt", "value": "Yes."}
CHAT = {"messages": [USER, ANSWER]}
LISTS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
VALUES: tuple[Any, ...] = ("a", 1, 0.5, True, ["a"], {"a": 1})


def look(tmp_path: Path, rows: list[Row], format: DataFormat) -> Survey:
    return survey([find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", rows)))], format, 0.0, 0.0)


@pytest.mark.parametrize(
    ("objective", "format"), [(each, format) for each in Objective for format in OBJECTIVES[each].data.formats]
)
def test_a_key_that_nothing_reads_is_counted_by_its_name_wherever_it_stands(
    tmp_path: Path, objective: Objective, format: DataFormat
) -> None:
    draw = random.Random(format.value)
    rows, expected = [], Unused()
    for i in range(60):
        row = dict(GOOD_ROWS[format][i % 2])
        for _ in range(draw.randrange(3)):
            name = f"extra_{draw.randrange(4)}"
            expected.add([] if name in row else [name])
            row[name] = draw.choice(VALUES)
        for column in LISTS:
            if isinstance(row.get(column), list) and draw.random() < 0.5:
                name = draw.choice(["id", "name", "timestamp"])
                first, *others = row[column]
                row[column] = [{**first, name: draw.choice(VALUES)}, *others]
                expected.add([f"{column}[].{name}"])
        rows.append(row)
    source = find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", rows)))
    facts = OBJECTIVES[objective]
    surveyed = survey([source], DataFormat.AUTO, 0.1, 0.1, facts.data.formats, generated=facts.generates)
    assert (surveyed.format, surveyed.faults.total) == (format, 0)
    assert surveyed.unused.counts == expected.counts
    (sentence,) = surveyed.unused.warnings()
    assert all(f"`{name}` ({count})" in sentence for name, count in expected.counts.items())


def test_what_is_empty_in_a_table_is_not_counted(tmp_path: Path) -> None:
    row = {**CHAT, "tools": None, "images": [], "label": "", "note": " ", "chosen": None, "weight": None}
    row["messages"] = [{**USER, "tool_calls": None, "weight": None}, {**ANSWER, "reasoning_content": "", "name": None}]
    surveyed = look(tmp_path, [row], DataFormat.MESSAGES)
    assert (surveyed.faults.total, surveyed.unused.warnings()) == (0, [])


def test_many_names_are_counted_together_and_names_that_may_be_content_are_not_repeated() -> None:
    unused = Unused()
    unused.add(f"k{i}" for i in range(5000))
    unused.add(["k0", "What is my card's number?", "messages[].Why so?"])
    summary = unused.summary()
    assert len(summary) == 16
    assert (summary[0].key, summary[0].count, summary[-1].key) == ("`k0`", 2, "other keys")
    assert sum(each.count for each in summary) == 5003
    few = Unused()
    few.add(["What is my card's number?", "messages[].Why so?", "", "messages[].name", "messages[].content[].x"])
    keys = {each.key for each in few.summary()}
    assert keys == {
        "one of 25 characters",
        "one of 18 characters",
        "a column without a name",
        "`messages[].name`",
        "`messages[].content[].x`",
    }


MEDIA = [{"type": "image_url", "image_url": {"url": "a.png"}}]


@pytest.mark.parametrize(
    ("row", "format", "reason"),
    [
        *(
            pytest.param({**row, name: value}, format, f"`{name}` is set{words}", id=f"{format.value}-{name}")
            for name, value, words in [
                ("tool_calls", [{"name": "f"}], ", but tools and their calls"),
                *((name, ["a.png"], ": images, audio and video") for name in ("images", "audios", "videos", "image")),
                ("sample_weight", 0.5, ": weights of rows"),
            ]
            for format, (row, _) in GOOD_ROWS.items()
        ),
        *(
            pytest.param(
                {**GOOD_ROWS[format][0], name: value}, format, f"`{name}` is true or false", id=f"{format}-{name}"
            )
            for format in (DataFormat.MESSAGES, DataFormat.SHARE_GPT, DataFormat.ALPACA, DataFormat.PROMPT_COMPLETION)
            for name, value in (("label", False), ("label", "True"), ("kto_tag", True))
        ),
        *(
            pytest.param({**GOOD_ROWS[format][0], name: "x"}, format, "compares answers", id=f"{format}-{name}")
            for format in (DataFormat.MESSAGES, DataFormat.SHARE_GPT, DataFormat.ALPACA, DataFormat.PROMPT_COMPLETION)
            for name in ("chosen", "rejected")
        ),
        *(
            pytest.param({"messages": [USER, {**ANSWER, **keys}]}, DataFormat.MESSAGES, reason, id=str([*keys]))
            for keys, reason in [
                ({"function_call": {"arguments": "{}"}}, "without the name of a function"),
                ({"content": None, "tool_calls": [{"id": "1"}]}, "without the name of a function"),
                ({"images": ["a.png"]}, "`images`: images, audio and video"),
                ({"weight": 0.5}, "`weight` is neither 0 nor 1"),
                ({"train": "maybe"}, "`train` is neither 0 nor 1"),
                ({"weight": 0}, "is to be learned"),
                ({"train_detail": [{"begin": 0}]}, "`train_detail`, which is not supported"),
                ({"thinking": ["a"]}, "`thinking` that is not the text"),
                ({"thinking": "a", "reasoning_content": "b"}, "`reasoning_content` that is not the text of one"),
                ({"content": MEDIA}, "parts that are no text"),
                ({"content": [{"type": "tool_use"}]}, "type `tool_use`, of which only text is supported; write tool"),
                ({"content": [{"type": "what is this"}]}, "type one of 12 characters, of which only text"),
                ({"content": None, "refusal": "No."}, "whose words are its `refusal`"),
                ({"content": {"a": 1}}, "is not a string: write JSON as text"),
            ]
        ),
        *(
            pytest.param({"messages": [turn, ANSWER]}, DataFormat.MESSAGES, reason, id=reason)
            for turn, reason in [
                ({**USER, "train": True}, "only answers are learned"),
                ({**USER, "reasoning_content": "hm"}, "one assistant turn's reasoning"),
            ]
        ),
        pytest.param(
            {"messages": [{"role": "system", "content": "Be kind."}, USER, ANSWER], "system": "Be brief."},
            DataFormat.MESSAGES,
            "begins with another system turn",
            id="two system turns",
        ),
        *(
            pytest.param({**row, "system": "Be brief."}, format, "is a string: write", id=f"{format}-system")
            for format, row in [
                (DataFormat.PROMPT_COMPLETION, {"prompt": "a", "completion": "b"}),
                (DataFormat.PROMPT, {"prompt": "a"}),
                (DataFormat.PREFERENCE, {"prompt": "a", "chosen": "b", "rejected": "c"}),
                (DataFormat.UNPAIRED_PREFERENCE, {"prompt": "a", "completion": "b", "label": True}),
            ]
        ),
        pytest.param(
            {"prompt": [USER], "completion": [{**ANSWER, "weight": 0}]},
            DataFormat.PROMPT_COMPLETION,
            "has weight 0",
            id="completion of weight 0",
        ),
        pytest.param(
            {"prompt": [USER], "completion": [{**ANSWER, "weight": 0}, ANSWER], "label": True},
            DataFormat.UNPAIRED_PREFERENCE,
            "rated as a whole",
            id="rated, of weight 0",
        ),
        pytest.param(
            {"prompt": [USER], "chosen": [{**ANSWER, "weight": 0}], "rejected": [{**ANSWER, "content": "No."}]},
            DataFormat.PREFERENCE,
            "compared as a whole",
            id="compared, of weight 0",
        ),
        pytest.param(
            {"messages": [USER, ANSWER], "chosen": "a", "rejected": "b"},
            DataFormat.PREFERENCE,
            "ends with an answer",
            id="an answer before the answers",
        ),
        pytest.param(
            {"prompt": "a", "chosen": "[{'role': 'user', 'content': 'a'}]", "rejected": "b"},
            DataFormat.PREFERENCE,
            "`chosen` is a list of messages as Python writes it",
            id="Python's writing",
        ),
    ],
)
def test_a_key_that_changes_what_is_to_be_learned_and_is_not_supported_makes_the_row_bad(
    row: Row, format: DataFormat, reason: str
) -> None:
    with pytest.raises(RowFault) as fault:
        to_sample(row, format)
    assert reason in str(fault.value)


@pytest.mark.parametrize(
    ("turns", "messages", "untrained"),
    [
        pytest.param([USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}], 4, {1}, id="OpenAI's"),
        pytest.param([USER, {**ANSWER, "train": False}, USER, {**ANSWER, "train": True}], 4, {1}, id="axolotl's"),
        pytest.param([USER, {**ANSWER, "training": False}, USER, ANSWER], 4, {1}, id="axolotl's default"),
        pytest.param([USER, {**ANSWER, "loss": "false"}, USER, ANSWER], 4, {1}, id="ms-swift's, as text"),
        pytest.param([USER, {**ANSWER, "loss_weight": 0.0}, USER, ANSWER], 4, {1}, id="a fraction"),
        pytest.param([{**HUMAN, "weight": 1}, {**GPT, "weight": 0}, HUMAN, GPT], 4, {1}, id="ShareGPT's"),
        pytest.param([USER, ANSWER, USER, {**ANSWER, "weight": 0}, USER], 2, set(), id="nothing learned at the end"),
        pytest.param([{**USER, "weight": 0}, ANSWER], 2, set(), id="the user's"),
    ],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_turn_may_say_that_it_carries_no_loss(
    turns: list[Row], messages: int, untrained: set[int], system: str
) -> None:
    added = bool(system)
    sample = to_sample({"messages": turns, "system": system}, DataFormat.MESSAGES)
    assert (len(sample.messages), sample.untrained) == (messages + added, {i + added for i in untrained})
    assert sample.completion_start == sample.last_assistant == messages - 1 + added


def test_a_reasoning_of_its_own_is_kept_with_its_answer_under_any_name() -> None:
    for name in ("reasoning_content", "reasoning", "thinking"):
        sample = to_sample({"messages": [USER, {**ANSWER, name: "Hm."}]}, DataFormat.MESSAGES)
        assert sample.messages[1] == {**ANSWER, "reasoning_content": "Hm."}


@pytest.mark.parametrize(
    "content",
    [
        USER["content"],
        [{"type": "text", "text": "Is it "}, {"type": "text", "text": "good?"}],
        [{"type": "input_text", "text": "Is it "}, {"type": "output_text", "text": "good?"}],
    ],
)
def test_parts_that_are_text_are_one_text(content: Any) -> None:
    assert to_sample({"messages": [{**USER, "content": content}, ANSWER]}, DataFormat.MESSAGES).messages == (
        USER,
        ANSWER,
    )


@pytest.mark.parametrize(
    ("user", "answer"),
    [
        pytest.param({"role": "User", "content": "Is it good?"}, {"role": " ASSISTANT", "content": "Yes."}, id="case"),
        pytest.param({"from": "Human ", "value": "Is it good?"}, {"from": "GPT", "value": "Yes."}, id="senders' case"),
        pytest.param({"role": "human", "value": "Is it good?"}, {"from": "model", "content": "Yes."}, id="keys mixed"),
        pytest.param(
            {"role": None, "content": None, **HUMAN}, {"from": None, "value": None, **ANSWER}, id="a table of both"
        ),
    ],
)
@pytest.mark.parametrize("format", [DataFormat.MESSAGES, DataFormat.SHARE_GPT])
def test_roles_are_known_by_all_their_names_under_either_key(format: DataFormat, user: Row, answer: Row) -> None:
    (column,) = COLUMNS[format]
    assert to_sample({column: [user, answer]}, format).messages == (USER, ANSWER)
    assert [*unused_in({column: [user, answer]}, (column,))] == []


@pytest.mark.parametrize("names", [("tool_call", "tool_response"), ("function_call", "function_response")])
@pytest.mark.parametrize(("sender", "text"), [("role", "content"), ("from", "value")])
def test_calls_and_results_may_be_turns_of_their_own(names: tuple[str, str], sender: str, text: str) -> None:
    call = {"name": "hours", "arguments": {"day": 1}}
    turns = [{sender: names[0], text: json.dumps(call)}, {sender: names[1], text: "9"}]
    sample = to_sample({"messages": [USER, *turns, ANSWER], "tools": [{"name": "hours"}]}, DataFormat.MESSAGES)
    assert [turn["role"] for turn in sample.messages] == ["user", "assistant", "tool", "assistant"]
    assert sample.messages[1]["tool_calls"] == [{"type": "function", "function": call}]


@pytest.mark.parametrize(("name", "value"), [("weight", 0), ("weight", "0.0"), ("train", False), ("train", "false")])
def test_a_row_that_is_not_to_be_learned_is_a_bad_one_and_never_learned(name: str, value: Any) -> None:
    for format in (DataFormat.MESSAGES, DataFormat.SHARE_GPT, DataFormat.ALPACA, DataFormat.PROMPT_COMPLETION):
        row = {**GOOD_ROWS[format][0], name: value}
        with pytest.raises(RowFault, match=f"`{name}` says that the row is not to be learned"):
            to_sample(row, format)
        to_sample({**row, name: 1}, format)
    to_sample({**GOOD_ROWS[DataFormat.TEXT_LABEL][0], name: value}, DataFormat.TEXT_LABEL)


def test_rows_that_say_they_are_held_out_are_told_with_what_to_do(tmp_path: Path) -> None:
    rows = [{**CHAT, "split": word} for word in ("train", "test", "Validation", "dev", "a")]
    for name, expected in (("train", 3), ("test", 0)):
        source = find_source(name, str(write_jsonl(tmp_path / "rows.jsonl", rows)))
        unused = survey([source], DataFormat.MESSAGES, 0.0, 0.0).unused
        sentences = [sentence for sentence in unused.warnings() if "held out" in sentence]
        assert len(sentences) == bool(expected)
        assert all(sentence.startswith(f"{expected} rows say") for sentence in sentences)
        assert {each.key for each in unused.summary()} >= ({"`split=test`", "`split`"} if expected else {"`split`"})


def test_lists_of_messages_as_json_text_are_read() -> None:
    text = '[{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}]'
    assert to_sample({"messages": text}, DataFormat.MESSAGES).messages == (USER, ANSWER)
    assert (
        to_sample({"prompt": f"Read {text}", "completion": "b"}, DataFormat.PROMPT_COMPLETION).prompt == f"Read {text}"
    )


NO = {"role": "assistant", "content": "No."}
PAIR = Sample(messages=(USER, ANSWER), completion_start=1, rejected=(NO,))
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            {"instruction": "Is it good?", "input": "", "chosen": "Yes.", "rejected": "No."},
            id="LLaMA-Factory's Alpaca",
        ),
        pytest.param({"question": "Is it good?", "system": "", "chosen": "Yes.", "rejected": "No."}, id="Orca's"),
        pytest.param({"question": "Is it good?", "chosen": [USER, ANSWER], "rejected": [USER, NO]}, id="whole ones"),
        pytest.param(
            {"conversations": [HUMAN], "chosen": GPT, "rejected": {**GPT, "value": "No."}},
            id="LLaMA-Factory's ShareGPT",
        ),
        pytest.param({"messages": [USER], "chosen": ANSWER, "rejected": NO}, id="single messages"),
        pytest.param({"messages": [USER], "chosen": "Yes.", "rejected": "No."}, id="answers as text"),
        pytest.param(
            {"messages": [USER, ANSWER], "chosen": [USER, ANSWER], "rejected": [USER, NO]}, id="UltraFeedback's"
        ),
    ],
)
def test_a_question_beside_two_answers_is_their_prompt(row: Row) -> None:
    assert to_sample(row, DataFormat.PREFERENCE) == PAIR


def test_a_system_column_is_the_first_turn_of_pairs_and_prompts() -> None:
    row = {"prompt": [USER], "system": "Be brief."}
    pair = to_sample({**row, "chosen": [ANSWER], "rejected": [NO]}, DataFormat.PREFERENCE)
    assert pair == Sample(messages=(SYSTEM, USER, ANSWER), completion_start=2, rejected=(NO,))
    assert to_sample(row, DataFormat.PROMPT).messages == (SYSTEM, USER)
    rated = to_sample({**row, "completion": [ANSWER], "label": True}, DataFormat.UNPAIRED_PREFERENCE)
    assert (rated.messages, rated.completion_start) == ((SYSTEM, USER, ANSWER), 2)
    assert (
        to_sample({"messages": [SYSTEM, USER, ANSWER], "system": "Be brief."}, DataFormat.MESSAGES).messages[0]
        == SYSTEM
    )


def test_rows_that_are_all_ratings_are_refused_with_the_objective_for_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"spec\.objective to KTO"):
        look(tmp_path, [{**CHAT, "label": True}, {**CHAT, "label": False}], DataFormat.MESSAGES)


def test_a_rated_alpaca_row_is_its_conversation_with_a_rated_answer() -> None:
    row = {"instruction": "Is it?", "input": "", "output": "Yes.", "system": "Be brief.", "kto_tag": False}
    assert detect(row, OBJECTIVES[Objective.KTO].data.formats) is DataFormat.UNPAIRED_PREFERENCE
    sample = to_sample(row, DataFormat.UNPAIRED_PREFERENCE)
    assert [message["content"] for message in sample.messages] == ["Be brief.", "Is it?", "Yes."]
    assert (sample.completion_start, sample.label) == (2, "false")
    assert not [*unused_in(row, used_columns(row, DataFormat.UNPAIRED_PREFERENCE))]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"messages": [USER, ANSWER], "label": False}, "false"),
        ({"conversations": [HUMAN, GPT], "kto_tag": True}, "true"),
        ({"messages": [USER, ANSWER], "kto_tag": 1, "label": None}, "true"),
    ],
)
def test_a_rated_conversation_is_a_prompt_with_a_rated_answer(row: Row, label: str) -> None:
    formats = OBJECTIVES[Objective.KTO].data.formats
    assert detect(row, formats) is DataFormat.UNPAIRED_PREFERENCE
    expected = Sample(messages=(USER, ANSWER), completion_start=1, label=label)
    assert to_sample(row, DataFormat.UNPAIRED_PREFERENCE) == expected
    assert not [*unused_in(row, used_columns(row, DataFormat.UNPAIRED_PREFERENCE))]
    short = {name: [USER] if isinstance(value, list) else value for name, value in row.items()}
    with pytest.raises(RowFault, match="ends with an answer to something"):
        to_sample(short, DataFormat.UNPAIRED_PREFERENCE)
