"""Labeled rows: which classes there are, how they are weighed and encoded, and what is refused."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rows import write_jsonl

from hone.contract.runconfig import RunConfig
from hone_trainer.data.assign import RowRef
from hone_trainer.data.classes import MAX_CLASSES, Classes, find_classes, skew_warning
from hone_trainer.data.labels import LabelEncoder, padding_id
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.data.sample import Sample
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput, RowFault

TWO = Classes(("bad", "good"), (3, 9))


def refs(**splits: Iterable[str | int]) -> list[RowRef]:
    return [RowRef(name, b"", b"", label) for name, labels in splits.items() for label in labels]


@pytest.mark.parametrize(
    ("labels", "names", "rows"),
    [
        pytest.param(["b", "a", "b"], ("a", "b"), (1, 2), id="names in alphabetical order"),
        pytest.param([10, 9, 9, -1], ("-1", "9", "10"), (1, 2, 1), id="integers in numeric order"),
        pytest.param([1, "x", "1"], ("1", "x"), (2, 1), id="both: as names"),
    ],
)
def test_classes_are_ordered_and_counted(
    labels: list[str | int], names: tuple[str, ...], rows: tuple[int, ...]
) -> None:
    classes = find_classes(refs(train=labels))
    assert (classes.names, classes.rows) == (names, rows)


@pytest.mark.parametrize(
    ("splits", "field", "message"),
    [
        pytest.param({"train": ["a"] * 5}, "spec.dataset.train", "the same label, `a`", id="one class"),
        pytest.param(
            {"train": ["a", "b"], "test": ["a", "c", "c"]},
            "spec.dataset.test",
            "`c` is a label of 2 test rows, but of no training row",
            id="a label in test alone",
        ),
        pytest.param(
            {"train": ["a", "b"], "validation": ["c", "d"]},
            "spec.dataset.validation",
            "`c`, `d` are labels of 2 validation rows",
            id="labels in validation alone",
        ),
        pytest.param(
            {"train": range(MAX_CLASSES + 1)},
            "spec.dataset.train",
            "1001 different labels; at most",
            id="too many",
        ),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(splits: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        find_classes(refs(**splits))
    assert error.value.field == field
    assert message in error.value.message
    assert error.value.hint


def test_a_row_that_another_split_has_too_counts_nowhere() -> None:
    assert find_classes([*refs(train=["a", "b"]), RowRef(None, b"", b"", "c")]).names == ("a", "b")


def test_weights_make_each_class_weigh_the_same() -> None:
    assert TWO.weights() == [12 / (2 * 3), 12 / (2 * 9)]
    assert sum(w * rows for w, rows in zip(TWO.weights(), TWO.rows, strict=True)) == sum(TWO.rows)


def test_unbalanced_classes_are_warned_of() -> None:
    assert skew_warning(TWO) == [], "3 : 1 is not more than 3"
    (warning,) = skew_warning(Classes(("a", "b", "c"), (10, 31, 20)))
    assert "`b` has 31 training rows, `a` has 10" in warning


def test_at_most_twenty_classes_are_shown_the_largest_first() -> None:
    many = Classes(tuple(f"c{i:02}" for i in range(30)), tuple(range(1, 31)))
    assert [(shown.label, shown.rows) for shown in many.shown()[:2]] == [("c29", 30), ("c28", 29)]
    assert len(many.shown()) == 20


# Encoding.


def test_a_text_is_encoded_as_a_server_encodes_it(tiny_tokenizer: Any) -> None:
    encoder = LabelEncoder(tiny_tokenizer, TWO)
    encoded = encoder.encode(Sample(prompt="I bought this lamp", label="good"))
    assert encoded.input_ids == tiny_tokenizer("I bought this lamp")["input_ids"]
    assert encoded.label == 1
    assert encoder.decode(encoded, 100) == "I bought this lamp → «good»"
    assert len(encoder.decode(encoded, 15)) == 15


def test_a_text_with_the_padding_token_is_a_faulty_row(tiny_tokenizer: Any) -> None:
    with pytest.raises(RowFault, match="which is the padding token"):
        LabelEncoder(tiny_tokenizer, TWO).encode(Sample(prompt="a <|endoftext|> b", label="good"))


def tokenizer_with(tokens: dict[str, int], last: int) -> Any:
    """One that knows these special tokens and ends each text with `last`."""

    class Tokenizer(SimpleNamespace):
        __hash__ = object.__hash__

        def __call__(self, text: str, verbose: bool) -> dict[str, list[int]]:
            return {"input_ids": [5, last]}

    return Tokenizer(**{f"{name}_token_id": tokens.get(name) for name in ("pad", "eos", "unk", "bos")})


@pytest.mark.parametrize(
    ("tokens", "last", "expected"),
    [
        pytest.param({"pad": 0, "eos": 2}, 7, 0, id="its own"),
        pytest.param({"eos": 2}, 7, 2, id="none of its own: the end of a text"),
        pytest.param({"pad": 2, "eos": 2, "unk": 3}, 2, 3, id="not one that each text ends with"),
    ],
)
def test_rows_are_padded_with_a_token_that_no_text_ends_with(tokens: dict[str, int], last: int, expected: int) -> None:
    assert padding_id(tokenizer_with(tokens, last)) == expected


def test_a_tokenizer_without_a_token_to_pad_with_is_refused() -> None:
    for tokens in ({}, {"eos": 2}):
        with pytest.raises(BadInput, match="no token to pad with"):
            padding_id(tokenizer_with(tokens, 2))


# Prepared data.


def labeled_row(i: int) -> dict[str, Any]:
    """A text with a label; every fourth is good."""
    return {"text": f"I bought this lamp. Order {i}.", "label": "bad" if i % 4 else "good"}


@pytest.fixture
def prepared_from(make_config: Any) -> Any:
    """Prepares rows for classification and loads what came out."""

    def run(rows: Iterable[Any], **sections: Any) -> Prepared:
        config = RunConfig.from_dict(make_config(rows, objective="Classification", **sections))
        return load_prepared(prepare(config).prepared)

    return run


def test_prepared_rows_carry_their_class(prepared_from: Any) -> None:
    prepared = prepared_from([*map(labeled_row, range(200)), {"text": "no label"}])
    assert prepared.classes.names == ("bad", "good")
    assert prepared.train.column_names == ["input_ids", "label", "length"]
    labels = prepared.train["label"][:]
    assert prepared.classes.rows == (labels.count(0), labels.count(1))
    for row in prepared.test:
        assert row["reference"] == prepared.classes.names[row["label"]]
        assert row["prompt_ids"] == row["input_ids"]
        assert row["prompt"].startswith("I bought")
    summary = prepared.summary
    assert (summary.format, summary.train_on, summary.class_count) == ("TextLabel", "Label", 2)
    assert [(bad.reason, bad.count) for bad in summary.bad_rows] == [("no column `label`", 1)]
    assert summary.tokens == sum(len(ids) for ids in prepared.train["input_ids"])
    assert summary.trained_token_share == 0.0


@pytest.mark.slow
def test_test_rows_are_classified_uncut_as_a_server_would(prepared_from: Any, tmp_path: Path) -> None:
    test = [{"text": "I bought this lamp." + " It works." * 12, "label": "bad"}]
    path = write_jsonl(tmp_path / "test.jsonl", test)
    prepared = prepared_from(map(labeled_row, range(200)), data={"test": str(path)})
    (row,) = prepared.test
    assert len(row["input_ids"]) == prepared.sequence_length < len(row["prompt_ids"])


def test_what_is_noticed_stands_in_the_plan(make_config: Any) -> None:
    rows = [labeled_row(i) if i % 8 else {**labeled_row(i), "label": "so-so"} for i in range(300)]
    planned = prepare(RunConfig.from_dict(make_config(rows, objective="Classification")))
    warnings = " ".join(planned.plan.warnings)
    assert "The classes are unbalanced: `bad` has" in warnings
    assert "chat template" not in warnings, "a text with a class is no chat"
    assert planned.plan.balance == "Weight"


@pytest.mark.parametrize(
    ("rows", "sections", "field", "message", "hint"),
    [
        pytest.param(
            map(labeled_row, range(20)), {"objective": "SFT"}, "spec.objective", "`text` and `label`", "Classification"
        ),
        pytest.param(
            None,
            {"objective": "Classification"},
            "spec.objective",
            "format Messages",
            "Set it to SFT or Distillation, or write each row",
        ),
        pytest.param(
            map(labeled_row, range(20)),
            {"objective": "Classification", "data": {"trainOn": "All"}},
            "spec.dataset.trainOn",
            "is supported only with",
            "Remove it",
        ),
        pytest.param(
            None, {"data": {"balance": "Weight"}}, "spec.dataset.balance", "is supported only with", "Remove it"
        ),
        pytest.param(
            None, {"hyperparameters": {"beta": 0.1}}, "spec.hyperparameters.beta", "is supported only with", "Remove it"
        ),
    ],
    ids=["labels for SFT", "messages for Classification", "trainOn", "balance for SFT", "beta for SFT"],
)
def test_rows_that_the_objective_cannot_read_are_refused(
    make_config: Any, rows: Any, sections: dict[str, Any], field: str, message: str, hint: str
) -> None:
    with pytest.raises(BadInput) as error:
        prepare(RunConfig.from_dict(make_config(rows, **sections)))
    assert error.value.field == field
    assert message in error.value.message
    assert hint in (error.value.hint or "")


def test_a_model_that_has_no_head_for_classes_is_refused(make_config: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "other"
    shutil.copytree(tiny_model, model)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "model_type": "codegen", "n_embd": 32, "n_layer": 2}))
    config = make_config(map(labeled_row, range(60)), objective="Classification", paths={"model": str(model)})
    with pytest.raises(BadInput, match="which transformers does not have for codegen"):
        prepare(RunConfig.from_dict(config))
