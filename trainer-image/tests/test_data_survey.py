"""The first pass over the data: files, bad rows, duplicates, splits."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row, write_jsonl

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.splits import choose_split, prompt_key, row_key
from hone_trainer.data.survey import Survey, survey
from hone_trainer.protocol.errors import BadInput

AUTO = DataFormat.AUTO


def look(tmp_path: Path, fractions: tuple[float, float] = (0.0, 0.0), **splits: Iterable[Any]) -> Survey:
    sources = [
        find_source(name, str(write_jsonl(tmp_path / name / "rows.jsonl", rows))) for name, rows in splits.items()
    ]
    return survey(sources, AUTO, *fractions, OBJECTIVES[Objective.SFT].data.formats)


def refused(tmp_path: Path, **splits: Iterable[Any]) -> BadInput:
    with pytest.raises(BadInput) as error:
        look(tmp_path, **splits)
    return error.value


def test_bad_rows_are_counted_by_reason_with_the_place_of_the_first(tmp_path: Path) -> None:
    user = {"role": "user", "content": "?"}
    result = look(
        tmp_path,
        train=[
            chat_row(0),
            "not json",
            "",
            json.dumps({"messages": [user]}),
            "[1, 2]",
            json.dumps({"text": "x"}),
            '{"broken": ',
            chat_row(1),
        ],
    )
    assert [(b.reason.split(":")[0], b.count, b.first) for b in result.faults.summary()] == [
        ("not JSON", 2, "rows.jsonl:2"),
        ("no assistant turn in `messages`", 1, "rows.jsonl:4"),
        ("not a JSON object", 1, "rows.jsonl:5"),
        ("no column `messages`", 1, "rows.jsonl:6"),
    ]
    assert len(result.refs) == 2


def test_bytes_that_are_no_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(chat_row(0)).encode() + b'\n{"messages": "\xff"}\n')
    result = survey([find_source("train", str(file))], AUTO, 0, 0)
    assert [(b.reason, b.first) for b in result.faults.summary()] == [
        ("not UTF-8: save the file as UTF-8", "rows.jsonl:2")
    ]
    assert len(result.refs) == 1


def test_more_reasons_than_the_summary_holds_are_counted_together(tmp_path: Path) -> None:
    reasons = 12
    result = look(tmp_path, train=[chat_row(0)])
    for i in range(reasons):
        for _ in range(reasons - i):
            result.faults.add(f"reason {i}", f"f:{i}")
    summary = result.faults.summary()
    assert len(summary) == 8
    assert summary[-1].reason == "other faults"
    assert sum(b.count for b in summary) == result.faults.total == sum(range(1, reasons + 1))


@pytest.mark.parametrize(
    ("rows", "message", "hint"),
    [
        pytest.param(["hello", "world"], "none of the 2 rows of rows.jsonl can be used", '"messages"', id="text"),
        pytest.param(["hello"], "first at rows.jsonl:1: not JSON", '"prompt"', id="which line"),
        pytest.param([], "rows.jsonl has no rows", "one object per line", id="empty"),
        pytest.param(["", "  "], "has no rows", "one object per line", id="blank lines"),
        pytest.param(
            [{"question": "a", "answer": "b"}],
            "the rows have `question`, `answer`, expected `messages` or `prompt` and `completion`",
            'Write each row as {"messages"',
            id="other columns",
        ),
        pytest.param([{"prompt": "a"}] * 3, "the rows have `prompt`, expected", '"completion"', id="half the columns"),
        pytest.param([{"messages": []}] * 3, "`messages` is empty", "Write each row as", id="only empty rows"),
    ],
)
def test_data_without_a_good_row_are_refused(tmp_path: Path, rows: list[Any], message: str, hint: str) -> None:
    error = refused(tmp_path, train=rows)
    assert error.field == "spec.dataset.train"
    assert message in error.message
    assert hint in (error.hint or "")


def test_a_bad_validation_set_is_named_by_its_own_field(tmp_path: Path) -> None:
    error = refused(tmp_path, train=[chat_row(0)], validation=[{"prompt": "a", "completion": "b"}])
    assert error.field == "spec.dataset.validation"
    assert "the rows have `prompt`, `completion`, expected `messages`" in error.message


def test_the_format_is_taken_from_the_first_row_that_has_one(tmp_path: Path) -> None:
    rows = ["oops", {"id": 1}, {"prompt": "a", "completion": "b"}, chat_row(0)]
    result = look(tmp_path, train=rows)
    assert result.format is DataFormat.PROMPT_COMPLETION
    assert (len(result.refs), result.faults.total) == (1, 3)


def splits_of(result: Survey) -> dict[bytes, str | None]:
    return {ref.row: ref.split for ref in result.refs}


def test_adding_rows_moves_no_other_row_to_another_split(tmp_path: Path) -> None:
    few = splits_of(look(tmp_path / "few", (0.1, 0.1), train=[chat_row(i) for i in range(0, 400, 2)]))
    more = splits_of(look(tmp_path / "more", (0.1, 0.1), train=[chat_row(i) for i in reversed(range(400))]))
    assert {row: more[row] for row in few} == few
    assert set(few.values()) == {"train", "validation", "test"}


def test_the_splits_have_about_the_shares_asked_for(tmp_path: Path) -> None:
    splits = list(splits_of(look(tmp_path, (0.2, 0.1), train=[chat_row(i) for i in range(3000)])).values())
    assert splits.count("validation") == pytest.approx(600, abs=70)
    assert splits.count("test") == pytest.approx(300, abs=55)


def test_another_validation_fraction_leaves_the_test_split_as_it_is() -> None:
    keys = [bytes([i, j]) for i in range(16) for j in range(64)]
    test = [key for key in keys if choose_split(key, 0.1, 0.1) == "test"]
    assert test == [key for key in keys if choose_split(key, 0.5, 0.1) == "test"]
    assert test


@pytest.mark.parametrize(
    "variant",
    ["is it  GOOD?", " Is it good?\n", "Is it ｇood?"],
    ids=["case and spacing", "surrounding space", "full-width letters"],
)
def test_prompts_that_differ_only_in_writing_share_a_split(variant: str) -> None:
    def key(text: str) -> bytes:
        return prompt_key(to_sample({"prompt": text, "completion": "yes"}, DataFormat.PROMPT_COMPLETION))

    assert key(variant) == key("Is it good?")
    assert key("Is it bad?") != key("Is it good?")


def test_the_answer_does_not_decide_the_split() -> None:
    first, second = chat_row(0), chat_row(0)
    second["messages"][1]["content"] = "another answer"
    samples = [to_sample(row, DataFormat.MESSAGES) for row in (first, second)]
    assert prompt_key(samples[0]) == prompt_key(samples[1])
    assert row_key(samples[0]) != row_key(samples[1])


def test_answers_of_several_turns_share_a_split_where_the_model_writes_its_own(tmp_path: Path) -> None:
    def row(i: int, taken: int) -> dict[str, Any]:
        turns = [("assistant", f"Why {taken}?"), ("user", f"Because of {taken}."), ("assistant", "Then yes.")]
        completion = [{"role": role, "content": content} for role, content in turns]
        return {"prompt": [{"role": "user", "content": f"Is it {i}?"}], "completion": completion}

    def splits(generated: bool) -> list[set[str | None]]:
        refs = survey([source], AUTO, 0, 0.4, OBJECTIVES[Objective.DISTILLATION].data.formats, generated=generated).refs
        return [{ref.split for ref in refs[i : i + 4]} for i in range(0, 240, 4)]

    rows = [row(i, taken) for i in range(60) for taken in range(4)]
    source = find_source("train", str(write_jsonl(tmp_path / "rows.jsonl", rows)))
    assert {*map(frozenset, splits(generated=True))} == {frozenset({"train"}), frozenset({"test"})}
    assert {"train", "test"} in splits(generated=False), "by the turns before the last answer"


def test_rows_of_the_held_out_files_are_left_out_of_training(tmp_path: Path) -> None:
    result = look(
        tmp_path,
        train=[chat_row(i) for i in range(10)] + [chat_row(9)],
        validation=[chat_row(i) for i in (7, 8, 20)],
        test=[chat_row(i) for i in (8, 9)],
    )
    splits = [ref.split for ref in result.refs]
    # train loses 7, 8 and both of 9; validation loses 8; test loses nothing.
    assert [splits.count(name) for name in ("train", "validation", "test")] == [7, 2, 2]
    assert result.duplicates == splits.count(None) == 5


def test_training_rows_that_ask_what_a_test_row_asks_are_counted(tmp_path: Path) -> None:
    other = chat_row(3)
    other["messages"][-1]["content"] = "something else"
    result = look(tmp_path, train=[chat_row(i) for i in range(5)], test=[other])
    assert (result.duplicates, result.shared_prompts) == (0, 1)
