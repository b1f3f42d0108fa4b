"""How many test rows are scored: as many as fit into the time that is told before, by measured speed."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from hone.contract.settings import Evaluation
from hone_trainer import finish
from hone_trainer.data.prepared import chosen_rows, scored_rows
from hone_trainer.scores import answers
from hone_trainer.scores.affordable import LEAST, TRIED, affordable, rows_within
from hone_trainer.scores.rows import RowScores


class Scorer:
    """A model that takes so many seconds a row, by a clock that the test owns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_row: float) -> None:
        self.now, self.per_row, self.measured = 0.0, per_row, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def __call__(self, rows: Dataset) -> None:
        self.now += self.per_row * len(rows)
        self.measured += len(rows)


ROWS = Dataset.from_dict({"place": list(range(500))})


@pytest.mark.parametrize(
    ("per_row", "minutes", "scored"),
    [
        pytest.param(0.1, 60, 500, id="all of them fit"),
        pytest.param(6.0, 60, 260, id="3,600 s, less 192 for each trial, at 12 s for both models"),
        pytest.param(600.0, 60, LEAST, id="fewer would show nothing"),
    ],
)
def test_as_many_rows_as_fit_into_the_time_are_scored(
    per_row: float, minutes: int, scored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(monkeypatch, per_row)
    rows = affordable(ROWS, scorer, 60.0 * minutes)
    assert (len(rows), scorer.measured) == (scored, TRIED)
    assert rows["place"][:] == affordable(ROWS, scorer, 60.0 * minutes)["place"][:], "the same rows every time"
    if len(rows) > LEAST:
        assert per_row * 2 * (TRIED + len(rows)) <= 60.0 * minutes, "the bound holds for both models"


def test_few_rows_are_scored_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(monkeypatch, 600.0)
    assert len(affordable(ROWS.select(range(LEAST)), scorer, 60.0)) == LEAST
    assert scorer.measured == 0


@pytest.mark.parametrize(("fits", "count"), [(101, 100), (289, 280), (1234, 1200), (56_789, 56_000)])
def test_runs_of_about_the_same_speed_score_the_same_rows(fits: int, count: int) -> None:
    assert rows_within(fits + 0.5, 1.0) == count


def test_a_note_says_how_many_rows_were_left_out() -> None:
    note = "280 of 500 test rows were scored: all of them would take longer than the 5 minutes"
    [words] = finish._left_out(280, 500, Evaluation(max_minutes=5))
    assert note in words
    assert finish._left_out(500, 500, Evaluation()) == []


def test_other_rows_of_the_same_number_have_base_scores_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"load_model": None, "load_tokenizer": None, "division": {}}.items():
        monkeypatch.setattr(answers, name, lambda *_, value=value, **__: value)
    scored = []

    def score_rows(model: object, tokenizer: object, rows: Dataset, most: int, name: str) -> RowScores:
        scored.append(name)
        return RowScores([0.0] * len(rows), rows["prompt"][:])

    config = SimpleNamespace(paths=SimpleNamespace(workspace=str(tmp_path), model="base"))
    planned = SimpleNamespace(model_digest="sha256:1", dataset=SimpleNamespace(digest="sha256:2"))
    test = Dataset.from_dict({"prompt": [f"p{i}" for i in range(1000)], "reference": ["r"] * 1000})
    of_some = test.select(chosen_rows(1000, 500)).select(chosen_rows(500, 200))
    of_all = test.select(chosen_rows(1000, 200))
    for rows in (of_some, of_all, of_some):
        of_base, chosen = answers._score_base(config, planned, rows, "float32", score_rows, 8)
        assert of_base.answers == rows["prompt"][:] and chosen == list(range(len(rows)))
    assert len(scored) == 2, "those of the same rows are used again"


@pytest.mark.parametrize(("slower", "scored"), [(1.0, 440), (3.0, 120), (300.0, LEAST)])
def test_a_base_that_is_slower_than_the_tuned_model_is_scored_on_fewer_rows(
    slower: float, scored: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that never ends an answer: both models then have figures of the rows that it was scored on."""
    for name, value in {"load_model": "base", "load_tokenizer": None, "division": {}, "stop_as_served": None}.items():
        monkeypatch.setattr(answers, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(answers, "METHODS", {"LoRA": SimpleNamespace(load=lambda *_: "tuned")})
    clock = Scorer(monkeypatch, 1.0)

    def score_rows(model: str, tokenizer: object, rows: Dataset, max_new_tokens: int, name: str) -> RowScores:
        clock.now += len(rows) * (slower if model == "base" else 1.0)
        return RowScores([0.0] * len(rows), rows["prompt"][:], [True] * len(rows))

    config = SimpleNamespace(
        paths=SimpleNamespace(workspace=str(tmp_path), model="base"), method=SimpleNamespace(type="LoRA")
    )
    planned = SimpleNamespace(model_digest="sha256:1", dataset=SimpleNamespace(digest="sha256:2"))
    test = Dataset.from_dict({"prompt": [f"p{i}" for i in range(1000)], "reference": ["r"] * 1000})
    seconds = 950.0
    base, tuned, rows = answers.both(config, planned, test, tmp_path, "float32", score_rows, 8, seconds)
    assert base.answers == tuned.answers == rows["prompt"][:], "pairs of the same rows"
    assert len(rows) == len(tuned.losses) == len(tuned.unfinished) == scored
    assert clock.now <= seconds or scored == LEAST


def test_raw_texts_are_told_apart_by_their_tokens() -> None:
    first, other = (
        Dataset.from_dict({"prompt": [""] * 2, "reference": [""] * 2, "prompt_ids": [[], []], "input_ids": ids})
        for ids in ([[1, 2], [3]], [[1, 2], [4]])
    )
    assert scored_rows(first) == scored_rows(first.select([0, 1])) != scored_rows(other)
