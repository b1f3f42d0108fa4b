"""Splits that make a fair test, and what is said where the rows do not allow one."""

from pathlib import Path
from typing import Any

import pytest
from rows import chat_row, write_jsonl

from hone.contract.settings import DataFormat, SplitBy
from hone_trainer.data.build_errors import check_bad_rows
from hone_trainer.data.classes import case_warning, find_classes
from hone_trainer.data.faults import Faults
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import Survey, good_samples, survey
from hone_trainer.protocol.errors import BadInput

Row = dict[str, Any]


def look(
    tmp_path: Path, rows: list[Row], split_by: SplitBy | None = None, columns: dict[str, str] | None = None
) -> Survey:
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    return survey([find_source("train", str(path), columns=columns)], DataFormat.AUTO, 0.1, 0.1, split_by=split_by)


def chat(*contents: str) -> Row:
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def labeled(text: str, label: Any) -> Row:
    return {"text": text, "label": label}


def test_rows_that_all_have_one_prompt_are_held_out_by_their_answers_and_it_is_said(tmp_path: Path) -> None:
    rows = [chat("Write a haiku.", f"Haiku {i}.") for i in range(200)]
    surveyed = look(tmp_path, rows)
    assert {ref.split for ref in surveyed.refs} == {"train", "validation", "test"}
    assert "200 of 200 rows have the same prompt" in surveyed.warnings[0]
    by_prompt = look(tmp_path, rows, SplitBy.PROMPT)
    assert len({ref.split for ref in by_prompt.refs}) == 1, "as the user wants it"
    assert not by_prompt.warnings


def test_growing_parts_of_one_conversation_are_in_one_split(tmp_path: Path) -> None:
    rows = []
    for i in range(100):
        turns = [f"{word} {i}" for word in ("ask", "answer", "and", "so", "then", "no")]
        rows += [chat(*turns[:end]) for end in (2, 4, 6)]
    surveyed = look(tmp_path, rows)
    conversations = [surveyed.refs[i : i + 3] for i in range(0, 300, 3)]
    assert all(len({ref.split for ref in refs}) == 1 for refs in conversations)
    assert {ref.split for ref in surveyed.refs} == {"train", "validation", "test"}
    assert any(sentence.startswith("200 rows continue the conversation") for sentence in surveyed.warnings)
    alone = look(tmp_path, rows[2::3])
    assert [ref.split for ref in alone.refs] != [refs[2].split for refs in conversations]
    assert not alone.warnings


def test_rows_are_kept_together_by_what_is_asked_for(tmp_path: Path) -> None:
    rows = [{**chat(f"Hi {i % 40}", "Hello.", f"And {i}?", "Yes."), "user": i % 50} for i in range(400)]

    def groups(split_by: SplitBy, of: Any, columns: dict[str, str] | None = None) -> list[set[str | None]]:
        refs = look(tmp_path, rows, split_by, columns).refs
        result: dict[Any, set[str | None]] = {}
        for i, ref in enumerate(refs):
            result.setdefault(of(i), set()).add(ref.split)
        return list(result.values())

    assert all(len(splits) == 1 for splits in groups(SplitBy.FIRST_TURN, lambda i: i % 40))
    assert all(len(splits) == 1 for splits in groups(SplitBy.COLUMN, lambda i: i % 50, {"group": "user"}))
    assert any(len(splits) > 1 for splits in groups(SplitBy.ROW, lambda i: i % 40))
    assert any(len(splits) > 1 for splits in groups(SplitBy.PROMPT, lambda i: i % 50))


def test_a_row_without_the_column_that_parts_rows_is_a_bad_one_in_both_passes(tmp_path: Path) -> None:
    rows = [{**chat_row(i), "user": None if i % 5 == 0 else "a"} for i in range(20)]
    surveyed = look(tmp_path, rows, SplitBy.COLUMN, {"group": "user"})
    ((reason, count),) = surveyed.faults.counts.items()
    assert ("no column `group`" in reason, count) == (True, 4)
    source = find_source("train", str(tmp_path / "rows.jsonl"), columns={"group": "user"})
    assert len([*good_samples([source], surveyed.format, grouped=True)]) == len(surveyed.refs) == 16


def test_a_class_is_never_held_out_as_a_whole(tmp_path: Path) -> None:
    rows = [labeled(f"Question {i}?", "ab"[i % 2]) for i in range(300)]
    rows += [labeled(f"Rare question {i}?", f"c{i}") for i in range(30)]
    surveyed = look(tmp_path, rows)
    classes = find_classes(surveyed.refs)
    assert len(classes.names) == 32
    assert {ref.split for ref in surveyed.refs if str(ref.label).startswith("c")} == {"train"}
    (sentence,) = surveyed.warnings
    assert "classes have so few rows that none was left for training" in sentence
    common = look(tmp_path, rows[:300])
    assert [ref.split for ref in common.refs] == [ref.split for ref in surveyed.refs[:300]], "no other row has moved"


def test_copies_and_contradictions_are_counted(tmp_path: Path) -> None:
    surveyed = look(tmp_path, [chat_row(i % 40) for i in range(200)])
    trained = [ref.row for ref in surveyed.refs if ref.split == "train"]
    assert f"{len(trained) - len(set(trained))} of {len(trained)} training rows are copies" in surveyed.warnings[0]
    assert not look(tmp_path, [chat_row(i) for i in range(200)]).warnings
    rows = [labeled(f"Question {i}?", "ab"[i % 2]) for i in range(40)]
    twice = look(tmp_path, [*rows, labeled("Question 0?", "b"), labeled("Question 1?", "a")])
    assert twice.warnings == ["4 rows contradict each other: 2 texts have more than one label."]


def test_classes_whose_names_differ_in_case_alone_are_named(tmp_path: Path) -> None:
    names = ("positive", "Positive", "POSITIVE ", "negative")
    surveyed = look(tmp_path, [labeled(f"Question {i}?", names[i % 4]) for i in range(80)])
    (sentence,) = case_warning(find_classes(surveyed.refs))
    assert sentence.startswith("3 classes differ from another in case or spacing alone: `POSITIVE`, `Positive`")
    assert not case_warning(find_classes(look(tmp_path, [labeled(f"Q {i}?", i % 3) for i in range(80)]).refs))


@pytest.mark.parametrize(
    ("good", "bad", "limit", "fails"), [(90, 10, 0.1, False), (89, 11, 0.1, True), (1, 9, 1, False)]
)
def test_more_bad_rows_than_allowed_are_refused_with_the_most_frequent_reason(
    good: int, bad: int, limit: float, fails: bool
) -> None:
    faults = Faults()
    for i in range(bad):
        faults.add("not JSON" if i else "`messages` is empty", f"rows.jsonl:{i}")
    if not fails:
        check_bad_rows("validation", good, faults, limit)
        return
    with pytest.raises(BadInput) as error:
        check_bad_rows("validation", good, faults, limit)
    assert error.value.field == "spec.dataset.validation"
    assert "11 of 100 rows cannot be used, and spec.dataset.maxBadRows is 0.1" in error.value.message
    assert "first at rows.jsonl:1: not JSON" in error.value.message
    assert "raise spec.dataset.maxBadRows" in (error.value.hint or "")


def test_a_file_with_another_format_than_the_others_is_refused_by_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [chat_row(i) for i in range(50)])
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": "a", "completion": "b"}])
    source = find_source("train", str(tmp_path))
    with pytest.raises(BadInput) as error:
        survey([source], DataFormat.AUTO, 0.1, 0.1)
    assert "no row of b.jsonl can be used with the format Messages of the other files" in error.value.message
    assert "its rows have the format PromptCompletion" in error.value.message
