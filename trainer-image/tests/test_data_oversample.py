"""`dataset.balance: Oversample`: rows of rare classes and groups are repeated, in training alone."""

from collections import Counter
from typing import Any

import pytest
from rows import chat_row

from hone.contract.runconfig import RunConfig
from hone_trainer.data.assign import RowRef, Seen
from hone_trainer.data.oversample import MAX_COPIES, oversampled
from hone_trainer.data.prepared import load_prepared
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput


def many(counts: dict[str, int], split: str = "train") -> tuple[list[Seen], list[RowRef]]:
    keys = [(name, f"{name} {index}".encode()) for name, count in counts.items() for index in range(count)]
    rows = [Seen("train", key, key, label=name) for name, key in keys]
    return rows, [RowRef(split, key, key, label=name) for name, key in keys]


def times(counts: dict[str, int]) -> Counter[str]:
    refs, _ = oversampled(*many(counts))
    return Counter({name: sum(ref.copies for ref in refs if ref.label == name) for name in counts})


def test_each_class_gets_about_as_many_rows_as_the_largest() -> None:
    result = times({"a": 400, "b": 150, "c": 100})
    assert (result["a"], result["c"]) == (400, 400)
    assert 370 <= result["b"] <= 430, "a fraction, by chance"


def test_a_row_is_repeated_at_most_ten_times() -> None:
    assert times({"a": 400, "b": 3})["b"] == 3 * MAX_COPIES


def test_the_same_rows_are_repeated_every_time_and_the_sentence_says_how_many() -> None:
    rows = many({"a": 90, "b": 40})
    (refs, (sentence,)), (again, _) = oversampled(*rows), oversampled(*rows)
    assert refs == again
    total = sum(ref.copies for ref in refs)
    assert sentence.startswith("Oversampled: the training rows of 1 of 2 classes or groups are repeated, up to 2.25 ")
    assert sentence.endswith(f"130 rows are learned as {total} in each epoch.")


def test_held_out_rows_are_not_repeated_and_do_not_count() -> None:
    (rows, refs), (tested, held_out) = many({"a": 90, "b": 30}), many({"b": 500}, "test")
    result, _ = oversampled([*rows, *tested], [*refs, *held_out])
    assert {ref.copies for ref in result if ref.split == "test"} == {1}
    assert sum(ref.copies for ref in result if ref.label == "b" and ref.split == "train") == 90


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (many({"a": 40}), "all training rows are of one class or group"),
        (([Seen("train", b"a", b"a", label=("x", "y"))], [RowRef("train", b"a", b"a")]), "several classes"),
    ],
    ids=["one class", "several classes of a row"],
)
def test_what_cannot_be_balanced_is_refused(rows: Any, words: str) -> None:
    with pytest.raises(BadInput, match=rf"spec\.dataset\.balance.*{words}"):
        oversampled(*rows)


@pytest.mark.slow
def test_the_prepared_rows_of_classes_are_balanced_and_the_base_stays_the_most_frequent_class(make_config: Any) -> None:
    labels = ["good"] * 240 + ["bad"] * 60
    rows = [{"text": f"text {index} {label}", "label": label} for index, label in enumerate(labels)]
    config = make_config(rows, objective="Classification", data={"balance": "Oversample"})
    planned = prepare(RunConfig.from_dict(config))
    prepared = load_prepared(planned.prepared)
    assert prepared.classes
    counts = Counter(prepared.classes.names[label] for label in prepared.train["label"])
    assert counts["bad"] > 0.8 * counts["good"] > 3 * prepared.classes.rows[0]
    assert prepared.classes.names[prepared.classes.majority] == "good"
    assert len(prepared.test) < 60, "test rows stand there once"
    assert planned.plan.balance == "Oversample"
    assert any(sentence.startswith("Oversampled") for sentence in planned.plan.warnings)


@pytest.mark.slow
def test_the_prepared_rows_of_groups_are_balanced(make_config: Any) -> None:
    rows = [{**chat_row(index), "language": "en" if index % 5 else "fi"} for index in range(300)]
    for row in rows:
        row["messages"][0]["content"] += f" {row['language']}"
    plain = make_config(rows, evaluation={"groupBy": "language"})
    before = prepare(RunConfig.from_dict(plain)).dataset.train_rows
    config = make_config(
        rows,
        evaluation={"groupBy": "language"},
        data={"balance": "Oversample"},
        paths={"run": f"{plain['paths']['run']}-2"},
    )
    after = prepare(RunConfig.from_dict(config)).dataset.train_rows
    assert 1.4 * before < after < 1.8 * before, "four of five rows are en"
