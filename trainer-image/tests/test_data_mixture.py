"""Several sources of training rows, names of nested columns, keys and roles, and classes that are no names."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_files import Row
from rows import chat_row, write_jsonl
from test_prepare import Pod, pod

from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone_trainer.data.columns import check_columns
from hone_trainer.data.digest import data_digest
from hone_trainer.data.formats import to_sample
from hone_trainer.data.keys import unused_in
from hone_trainer.data.mixture import copies
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.data.read import ABSENT, at, rename
from hone_trainer.data.sources import Part, find_source
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.planfile import load_plan

pytestmark = pytest.mark.slow

__all__ = ["pod"]

CHATS = [chat_row(i) for i in range(100)]
QUESTIONS = [{"q": f"Who made order {i}?", "a": f"Maker {i}."} for i in range(60)]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The directory of the volumes, with two data sets."""
    write_jsonl(tmp_path / "mnt/data/train/0/chats.jsonl", CHATS)
    write_jsonl(tmp_path / "mnt/data/train/1/questions.jsonl", QUESTIONS)
    return tmp_path / "mnt/data"


def parts(volume: Path, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> dict[str, Any]:
    """The section `data` with two sources, and more settings of each."""
    chats = {"name": "chats", "path": str(volume / "train/0/chats.jsonl")}
    questions = {
        "name": "questions",
        "path": str(volume / "train/1/questions.jsonl"),
        "columns": {"instruction": "q", "output": "a"},
    }
    sources = [{**chats, **(first or {})}, {**questions, **(second or {})}]
    return {"train": chats["path"], "mounts": str(volume), "sources": sources}


def prepared(pod: Pod, config: dict[str, Any]) -> tuple[StepResult, Prepared]:
    code, result = pod.run(config)
    assert code == 0, result.verdict
    planned = load_plan(RunConfig.from_dict(config))
    assert planned is not None
    return result, load_prepared(planned.prepared)


def test_sources_of_other_formats_and_columns_are_trained_on_together_and_counted(
    pod: Pod, make_config: Any, volume: Path, tiny_tokenizer: Any
) -> None:
    result, data = prepared(pod, make_config(data=parts(volume)))
    summary = result.dataset
    assert summary is not None
    assert (summary.format, summary.train_on) == ("Messages, Alpaca", "Assistant")
    assert summary.sources is not None
    assert [(each.name, each.format, each.rows, each.bad_rows) for each in summary.sources] == [
        ("chats", "Messages", 100, 0),
        ("questions", "Alpaca", 60, 0),
    ]
    assert sum(each.train_rows for each in summary.sources) == summary.train_rows == len(data.train)
    texts = [tiny_tokenizer.decode(ids) for ids in data.train["input_ids"]]
    assert sum("Maker" in text for text in texts) == summary.sources[1].train_rows
    assert summary.train_rows + summary.validation_rows + summary.test_rows == 160
    places = [place for place, text in enumerate(texts) if "Maker" in text]
    assert min(places) < 20
    assert max(places) > len(texts) - 20, "the sources are mixed"


@pytest.mark.parametrize(("weight", "least", "most"), [(3, 3.0, 3.0), (0.5, 0.25, 0.75), (1.5, 1.25, 1.75)])
def test_a_weight_repeats_training_rows_and_no_held_out_ones(
    pod: Pod, make_config: Any, volume: Path, tiny_tokenizer: Any, weight: float, least: float, most: float
) -> None:
    test = write_jsonl(volume / "test/t.jsonl", [chat_row(i) for i in range(500, 520)])
    held_out = {"test": str(test), "validationFraction": 0.0}
    data = {**parts(volume, second={"weight": weight}), **held_out}
    result, written = prepared(pod, make_config(data=data))
    assert result.dataset is not None
    counts = Counter(tiny_tokenizer.decode(ids) for ids in written.train["input_ids"])
    questions = {text: count for text, count in counts.items() if "Maker" in text}
    assert least <= sum(questions.values()) / 60 <= most
    assert set(questions.values()) <= {math.floor(weight), math.ceil(weight)}
    assert all(count == 1 for text, count in counts.items() if "Maker" not in text)
    assert result.dataset.test_rows == 20
    assert result.dataset.sources is not None
    assert result.dataset.sources[1].train_rows == sum(questions.values())


def test_max_rows_takes_the_same_rows_each_time_and_counts_no_others(
    pod: Pod, make_config: Any, volume: Path, tiny_tokenizer: Any
) -> None:
    texts = []
    for limit in (20, 30):
        config = make_config(data=parts(volume, second={"maxRows": limit}))
        config["paths"]["run"] += str(limit)
        result, data = prepared(pod, config)
        summary = result.dataset
        assert summary is not None
        assert summary.sources is not None
        assert summary.sources[1].rows == limit
        assert summary.train_rows + summary.validation_rows + summary.test_rows == 100 + limit
        assert summary.duplicate_rows == 0
        rows = [tiny_tokenizer.decode(ids) for split in (data.train, data.test) for ids in split["input_ids"]]
        texts.append({text for text in rows if "Maker" in text})
    assert len(texts[0] - texts[1]) <= 3, "only rows that moved to validation"


def test_copies_follow_from_row_and_weight_alone() -> None:
    rows = [bytes([i]) for i in range(200)]
    counts = [copies(row, Part("a", 0, 2.25)) for row in rows]
    assert set(counts) == {2, 3}
    assert 0.15 < sum(count == 3 for count in counts) / 200 < 0.35
    assert counts == [copies(row, Part("b", 1, 2.25)) for row in rows]
    assert copies(rows[0], None) == 1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"columns": None}, "spec.dataset.train.sources[1]: a column is missing: the rows have `q`, `a`"),
        ({}, {"columns": {"prompt": "x"}}, "spec.dataset.train.sources[1].columns: `prompt` is mapped to `x`"),
        ({}, {"columns": {"text": "q"}}, "spec.dataset.train.sources[1]: its rows have the format Text"),
        ({"path": "none.jsonl"}, {}, "spec.dataset.train.sources[0]: none.jsonl"),
        ({}, {"format": "Preference"}, "spec.dataset.train.sources[1]: "),
        ({}, {"columns": {"prompt": "q", "chosen": "a", "rejected": "a"}}, "spec.dataset.train.sources[1]"),
    ],
)
def test_the_source_that_cannot_be_used_is_named(
    pod: Pod, make_config: Any, volume: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    code, result = pod.run(make_config(data=parts(volume, first, second)))
    assert code == 64
    assert result.verdict is not None
    assert message in result.verdict.message


def test_bad_rows_are_limited_and_placed_by_source(pod: Pod, make_config: Any, volume: Path) -> None:
    write_jsonl(volume / "train/1/questions.jsonl", [*QUESTIONS[:30], *[{"q": "", "a": "b"}] * 30])
    code, result = pod.run(make_config(data=parts(volume)))
    assert code == 64
    assert result.verdict is not None
    assert "spec.dataset.train.sources[1]: 30 of 60 rows cannot be used" in result.verdict.message
    assert "questions/questions.jsonl:31" in result.verdict.message


NESTED: Row = {"id": 1, "data": {"question": "Is it?", "answer": "Yes.", "note": "x"}, "data.answer": "No."}


def test_a_column_can_be_a_key_of_an_object() -> None:
    columns = {"instruction": "data.question", "output": "data.answer"}
    row = rename(NESTED, columns)
    assert [message["content"] for message in to_sample(row, DataFormat.ALPACA).messages] == ["Is it?", "No."]
    assert {*unused_in(row, ("instruction", "output"))} == {"id", "data"}
    assert "question" in NESTED["data"], "the row as it was read stays"
    whole = rename({"data": {"question": "a"}}, {"instruction": "data.question"})
    assert [*unused_in(whole, ("instruction",))] == []
    assert at({"a": {"b": None}}, "a.b") is None
    assert at({"a": ["b"]}, "a.0") is ABSENT


def test_a_path_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "rows.jsonl", [NESTED]))
    check_columns([find_source("train", path, columns={"prompt": "data.question"})])
    with pytest.raises(BadInput, match="no row has that column"):
        check_columns([find_source("train", path, columns={"prompt": "data.query"})])


def test_keys_and_roles_of_messages_have_names_of_ones_own() -> None:
    columns = {"messages": "dialog.turns", "role": "speaker", "content": "text"}
    roles = {"customer": "user", "agent": "assistant"}
    turns = [{"speaker": "customer", "text": "Hello?"}, {"speaker": "agent", "text": "Yes."}]
    sample = to_sample(rename({"dialog": {"turns": turns}}, columns, roles), DataFormat.MESSAGES)
    assert sample.messages == ({"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."})
    shared = {"conversations": [{"from": "customer", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]}
    assert to_sample(rename(shared, {}, roles), DataFormat.SHARE_GPT).messages == sample.messages
    with pytest.raises(RowFault, match=r"spec\.dataset\.roles"):
        to_sample(shared, DataFormat.SHARE_GPT)


def test_roles_reach_every_row_of_a_job(pod: Pod, make_config: Any) -> None:
    rows = [{"messages": [{**turn, "role": turn["role"].upper()} for turn in row["messages"]]} for row in CHATS]
    code, result = pod.run(make_config(rows, data={"roles": {"USER": "user", "ASSISTANT": "assistant"}}))
    assert code == 0, result.verdict
    assert result.dataset is not None
    assert not result.dataset.bad_rows


@pytest.mark.parametrize(("label", "name"), [(True, "true"), (False, "false"), (2.0, 2), (0.5, "0.5"), (3, 3)])
def test_a_class_can_be_a_boolean_or_a_number(label: Any, name: Any) -> None:
    sample = to_sample({"text": "It broke.", "label": label}, DataFormat.TEXT_LABEL)
    assert (sample.label, type(sample.label)) == (name, type(name))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"a": 1}, "is an object: write the name of the class, or a list of names"),
        (math.nan, "neither a string nor a number"),
        (None, "neither a string nor a number"),
    ],
)
def test_what_names_no_class_is_refused(label: Any, message: str) -> None:
    with pytest.raises(RowFault, match=message):
        to_sample({"text": "It broke.", "label": label}, DataFormat.TEXT_LABEL)


def test_a_file_that_moves_from_one_source_to_another_is_other_data(volume: Path, tmp_path: Path) -> None:
    def digests(*names: str) -> str:
        sources = []
        for index, name in enumerate(names):
            directory = tmp_path / f"{len(names)}-{index}-{name}"
            directory.mkdir()
            for part in name:
                write_jsonl(directory / f"{part}.jsonl", [chat_row(ord(part))])
            source = find_source("train", str(directory), mount=directory)
            sources.append(replace(source, part=Part(index, f"s{index}")))
        return data_digest(sources)

    assert digests("ab", "c") != digests("a", "bc")
