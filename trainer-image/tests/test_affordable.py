"""How many test rows are scored: as many as fit into the time that is told before, by measured speed."""

import time

import pytest
from datasets import Dataset

from hone.contract.settings import Evaluation
from hone_trainer import finish
from hone_trainer.scores.affordable import LEAST, TRIED, affordable, rows_within


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
        pytest.param(6.0, 60, 280, id="3,600 s, less the trial's 192, at 12 s for both models"),
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
        assert per_row * (TRIED + 2 * len(rows)) <= 60.0 * minutes, "the bound holds for both models"


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
