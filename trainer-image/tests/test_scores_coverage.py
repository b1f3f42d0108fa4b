"""How often the interval of a score holds the true value: at least 94 % where it promises 95 %.

`make soak` draws enough samples to tell 94 from 95 %; the tests of a commit draw fewer, and only 50 rows.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from hone_trainer.scores import intervals
from hone_trainer.scores.figures import RowFigures, score

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""Figures of base and tuned model for so many rows."""


def hits(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Such as exactMatch: 60 % and 90 %, and what the base got right the tuned model mostly gets right too."""
    base = draw.random(rows) < 0.6
    tuned = np.where(base, draw.random(rows) < 0.95, draw.random(rows) < 0.825)
    return base.astype(float), tuned.astype(float)


def fields(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Such as jsonFields: the base knows half of a few, the tuned model nearly all of nearly all."""
    return np.where(draw.random(rows) < 0.05, 0.5, 0.0), np.where(draw.random(rows) < 0.97, 1.0, 0.5)


def overlap(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Such as rougeL: two texts of the same row are alike in how near they are."""
    row = draw.beta(2, 5, rows)
    return 0.5 * row + 0.5 * draw.beta(2, 5, rows), 0.5 * row + 0.5 * draw.beta(3, 5, rows)


def same(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Models that differ in one row of ten."""
    base = draw.random(rows)
    return base, np.where(draw.random(rows) < 0.1, draw.random(rows), base)


def losses(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of rows: skewed, and lower by about a third."""
    base = draw.gamma(2.0, 1.0, rows)
    return base, base * draw.uniform(0.4, 0.9, rows)


def long_tail(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of which few are many times the others; the tuned model's are lower by a tenth."""
    base = draw.lognormal(0.0, 1.0, rows)
    return base, 0.9 * draw.lognormal(0.0, 1.0, rows)


CASES: dict[str, tuple[Draw, float, float, tuple[float, float] | None]] = {
    "hits": (hits, 0.6, 0.6 * 0.95 + 0.4 * 0.825, (0.0, 1.0)),
    "fields": (fields, 0.025, 0.985, (0.0, 1.0)),
    "overlap": (overlap, 2 / 7, 1 / 7 + 3 / 16, (0.0, 1.0)),
    "same": (same, 0.5, 0.5, (0.0, 1.0)),
    "losses": (losses, 2.0, 1.3, None),
    "long tail": (long_tail, float(np.exp(0.5)), 0.9 * float(np.exp(0.5)), None),
}
"""How figures are drawn, the true means of base and tuned model, and the bounds of a figure."""


def coverage(case: str, rows: int, repeats: int) -> dict[str, float]:
    """The share of samples whose intervals hold the true values."""
    draw, (figures, base, tuned, bounds) = np.random.default_rng(rows), CASES[case]
    truths = {"base": base, "tuned": tuned, "improvement": base - tuned if bounds is None else tuned - base}
    held = dict.fromkeys(truths, 0)
    for _ in range(repeats):
        drawn = RowFigures("m", *figures(draw, rows), higher_is_better=bounds is not None, bounds=bounds)
        summary = score(drawn) or pytest.fail("there are rows")
        for name, truth in truths.items():
            interval = getattr(summary, name)
            held[name] += interval.lower <= truth <= interval.upper
    return {name: count / repeats for name, count in held.items()}


def check(case: str, rows: int, repeats: int) -> None:
    """Fail where so few samples hold the value that it is not by chance in one of a thousand cases."""
    least = int(stats.binom.ppf(0.001, repeats, 0.94)) / repeats
    shares = coverage(case, rows, repeats)
    print(case, rows, shares)
    assert min(shares.values()) >= least, shares


@pytest.mark.parametrize("case", CASES)
def test_an_interval_holds_the_true_value_as_often_as_it_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    check(case, rows=50, repeats=200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rows", [50, 200, 1000])
@pytest.mark.parametrize("case", CASES)
def test_it_does_so_for_few_and_many_rows(case: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    check(case, rows, repeats=3000 if rows < 1000 else 1000)


def test_the_bootstrap_alone_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    monkeypatch.setitem(CASES, "fields", (*CASES["fields"][:3], None))
    assert min(coverage("fields", 50, 200).values()) < 0.85


def test_the_mean_of_a_long_tail_is_held_more_often_than_by_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    draw, truth = np.random.default_rng(4), float(np.exp(0.5))
    above = {"percentiles": 0, "mean": 0}
    for _ in range(300):
        values = draw.lognormal(0.0, 1.0, 50)
        above["percentiles"] += intervals.bootstrap(lambda rows: values[rows].mean(axis=1), 50).upper < truth  # noqa: B023
        above["mean"] += intervals.mean(values).upper < truth
    assert above["mean"] <= 0.8 * above["percentiles"], above


def test_differences_with_a_few_large_ones_seem_better_no_more_often_than_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A/A: of 50 differences of log-normal losses, percentiles alone are wrong on one side in 4 %, Student's in 2 %."""
    monkeypatch.setattr(intervals, "RESAMPLES", 300)
    draw, beyond, comparisons = np.random.default_rng(5), 0, 600
    for _ in range(comparisons):
        first, other = draw.lognormal(0.0, 1.0, (2, 50))
        interval = intervals.mean(first - other)
        beyond += interval.lower > 0 or interval.upper < 0
    assert beyond / comparisons <= 0.055, beyond


def test_equal_and_few_figures_have_an_interval() -> None:
    assert intervals.mean(np.full(50, 0.1)).lower == pytest.approx(0.1)
    assert np.isfinite(intervals._studentized(np.append(np.zeros(49), 1.0))(0.95)).all()
    assert intervals.mean(np.array([1.0, 2.0])).upper <= 2.0


def test_where_figures_differ_the_bootstrap_suffices() -> None:
    figures = np.random.default_rng(1).random(60)
    assert intervals.bounded_mean(figures, 0.0, 1.0) == intervals.bootstrap(lambda rows: figures[rows].mean(axis=1), 60)


def test_for_hits_a_bounded_mean_is_as_wide_as_wilsons_interval_at_least() -> None:
    figures = np.arange(40) < 36
    bounded, wilson = intervals.bounded_mean(figures.astype(float), 0.0, 1.0), intervals.proportion(figures)
    assert bounded.lower <= wilson.lower and wilson.upper <= bounded.upper
    assert bounded.value == wilson.value
