"""Texts with several classes: how labels are written, what is refused, and what becomes of them in prepared data."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rows import write_jsonl

from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone_trainer.data.assign import RowRef
from hone_trainer.data.classes import MAX_WEIGHT, Classes, find_classes
from hone_trainer.data.formats import detect, to_sample
from hone_trainer.data.label_values import parse_label
from hone_trainer.data.labels import LabelsEncoder
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.data.read import rename
from hone_trainer.data.sample import Sample
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput, RowFault

SEVERAL = Classes(("late", "rude"), (3, 9), total=30)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param(["rude", "late"], ("late", "rude"), id="a list, in order"),
        pytest.param([], (), id="none"),
        pytest.param('["rude", "late"]', ("late", "rude"), id="JSON, as CSV has it"),
        pytest.param("[]", (), id="none as JSON"),
        pytest.param([3, 1.0, " x "], (1, 3, "x"), id="numbers, and spaces around names"),
        pytest.param("[sic]", "[sic]", id="a name in brackets is one class"),
        pytest.param("rude, late", "rude, late", id="a name with a comma is one class"),
        pytest.param("[1-10]", "[1-10]", id="a range in brackets is one class"),
    ],
)
def test_labels_are_lists_or_json(value: Any, want: Any) -> None:
    assert parse_label(value) == want


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("['rude', 'late']", "not as JSON: write it with json.dumps"),
        ({"rude": 1}, "an object"),
        ([["rude"]], "something else than names"),
        ([True, False], "something else than names"),
        ([0, 1, 0], "a class twice"),
        (["", "rude"], "is empty"),
        ([None], "neither a string nor a number"),
        (["r" * 129], "more than 128 characters"),
    ],
)
def test_lists_that_name_no_classes_make_bad_rows(value: Any, words: str) -> None:
    with pytest.raises(RowFault, match=words):
        parse_label(value)


@pytest.mark.parametrize(("one", "other"), [(1, 0), ("1", "0"), (True, False), (1.0, 0.0), ("True", " false ")])
def test_columns_of_0_and_1_are_classes(one: Any, other: Any) -> None:
    row = {"text": "Late again!", "rude": other, "late": one, "id": 7}
    assert rename(row, {"label": "rude, late"}) == {"text": "Late again!", "id": 7, "label": ["late"]}


@pytest.mark.parametrize("value", [None, -1, "yes", 0.5])
def test_a_class_that_is_neither_0_nor_1_makes_a_bad_row(value: Any) -> None:
    with pytest.raises(RowFault, match=r"`rude` is a class of spec\.dataset\.columns, but neither 0 nor 1"):
        rename({"text": "x", "rude": value, "late": 1}, {"label": "rude,late"})


def test_a_column_whose_name_has_a_comma_stays_one_column() -> None:
    row = {"text": "x", "rude,late": "rude"}
    assert rename(row, {"label": "rude,late"}) == {"text": "x", "label": "rude"}


def test_labels_is_another_name_of_label_for_classification_alone() -> None:
    row = {"text": "x", "labels": ["late"]}
    assert detect(row, (DataFormat.TEXT_LABEL,)) is DataFormat.TEXT_LABEL
    assert to_sample(row, DataFormat.TEXT_LABEL).label == ("late",)
    assert detect(row, (DataFormat.MESSAGES, DataFormat.TEXT)) is DataFormat.TEXT, "raw text has other columns, too"
    assert to_sample({**row, "label": "rude"}, DataFormat.TEXT_LABEL).label == "rude"


def refs(**splits: Iterable[Any]) -> list[RowRef]:
    return [RowRef(name, b"", b"", label) for name, labels in splits.items() for label in labels]


def test_classes_are_counted_by_row_and_weighed_by_how_rare_they_are() -> None:
    classes = find_classes(refs(train=[("a",), ("a", "b"), (), ("a",)], test=[("b",)]))
    assert (classes.names, classes.rows, classes.total) == (("a", "b"), (3, 1), 4)
    assert classes.weights() == [1.0, 3.0], "never less than rows without the class"
    assert Classes(("a", "b"), (1, 500), total=1000).weights() == [MAX_WEIGHT, 1.0]
    assert Classes.of(json.loads(json.dumps(classes.to_dict()))) == classes


@pytest.mark.parametrize(
    ("splits", "field", "message"),
    [
        ({"train": [("a", "b"), "a"]}, "spec.dataset.train", "a list of classes in 1 rows, and one class in 1"),
        ({"train": [(), ()]}, "spec.dataset.train", "no training row has a class"),
        ({"train": [("a",), ()]}, "spec.dataset.train", "`a` is the only class"),
        ({"train": [("a",), ("b",)], "test": [("a", "c")]}, "spec.dataset.test", "`c` is a label of 1 test rows"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(splits: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        find_classes(refs(**splits))
    assert error.value.field == field
    assert message in error.value.message
    assert error.value.hint


def test_a_row_is_encoded_with_the_indices_of_its_classes(tiny_tokenizer: Any) -> None:
    encoder = LabelsEncoder(tiny_tokenizer, SEVERAL)
    encoded = encoder.encode(Sample(prompt="I bought this lamp", label=("late", "rude")))
    assert encoded.columns()["label"] == [0, 1]
    assert encoder.decode(encoded, 100) == "I bought this lamp → «late, rude»"
    assert encoder.reference(Sample(prompt="x", label=())) == "(none)"


# Prepared data.


def row(i: int) -> dict[str, Any]:
    """A text with none, one or two classes."""
    names = [name for name, divisor in (("late", 2), ("rude", 3)) if i % divisor == 0]
    return {"text": f"I bought this lamp. Order {i}.", "label": names}


@pytest.fixture
def prepared_from(make_config: Any) -> Any:
    def run(rows: Iterable[Any], **sections: Any) -> tuple[Prepared, Any]:
        planned = prepare(RunConfig.from_dict(make_config(rows, objective="Classification", **sections)))
        return load_prepared(planned.prepared), planned.plan

    return run


def test_prepared_rows_carry_their_classes(prepared_from: Any) -> None:
    prepared, plan = prepared_from(map(row, range(300)))
    classes = prepared.classes
    assert classes.names == ("late", "rude")
    labels = prepared.train["label"][:]
    assert classes.rows == tuple(sum(i in each for each in labels) for i in (0, 1))
    assert classes.total == len(labels) == prepared.summary.train_rows
    assert [] in labels
    for each in prepared.test:
        assert each["reference"] == (", ".join(classes.names[i] for i in each["label"]) or "(none)")
    assert (prepared.summary.train_on, prepared.summary.class_count) == ("Labels", 2)
    assert prepared.summary.tokens == sum(map(len, prepared.train["input_ids"])), "classes are no tokens"
    assert plan.balance == "None"


def test_columns_of_a_table_are_the_same_rows(prepared_from: Any, tmp_path: Path) -> None:
    lines = [
        f"{each['text']},{int('rude' in each['label'])},{int('late' in each['label'])}" for each in map(row, range(300))
    ]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(["comment,rude,late", *lines]))
    columns = {"text": "comment", "label": "rude,late"}
    from_table, _ = prepared_from([], data={"train": str(table), "columns": columns})
    from_lists, _ = prepared_from(map(row, range(300)))
    assert from_table.train[:] == from_lists.train[:]


def test_a_column_that_no_row_has_is_named(prepared_from: Any, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "x", "rude": 1}])
    with pytest.raises(BadInput, match="`label` is mapped to `late`, but no row has that column"):
        prepared_from([], data={"train": str(path), "columns": {"label": "rude,late"}})
