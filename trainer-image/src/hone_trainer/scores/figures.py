"""One metric's figure of each test row, of base and tuned model, and the score that they give."""

from dataclasses import dataclass, replace

import numpy as np

from hone.contract.results import Interval, Score
from hone_trainer.scores.intervals import bounded_mean, mean, paired_difference, proportion


@dataclass(frozen=True)
class RowFigures:
    """What two models got in one metric for the same rows.

    Attributes:
        metric: its name.
        base, tuned: shape [rows]; NaN where the metric does not apply to a row.
        higher_is_better: whether more is better.
        bounds: least and greatest value that a figure can have; None: there are none.
    """

    metric: str
    base: np.ndarray
    tuned: np.ndarray
    higher_is_better: bool = True
    bounds: tuple[float, float] | None = None

    @property
    def applies(self) -> np.ndarray:
        """The rows that have a figure of both models; booleans, shape [rows]."""
        applies: np.ndarray = ~(np.isnan(self.base) | np.isnan(self.tuned))
        return applies

    def at(self, rows: np.ndarray) -> "RowFigures":
        """The same of some rows, such as a group's, by booleans or indices."""
        return replace(self, base=self.base[rows], tuned=self.tuned[rows])

    def gains(self) -> np.ndarray:
        """By how much the tuned model is better for each row, shape [rows]; 0 where the metric does not apply."""
        gain = self.tuned - self.base if self.higher_is_better else self.base - self.tuned
        return np.nan_to_num(np.where(self.applies, gain, 0.0))


def telling_rows(figures: RowFigures | None, count: int, most: int) -> list[int]:
    """Which rows a report shows: those that got worse the most, those that got better the most, and the first others.

    Args:
        figures: of the main metric; None: there are none.
        count: rows.
        most: of the rows that are shown.
    """
    rows = range(count)
    if figures is None:
        return list(rows)[:most]
    gains, part = figures.gains(), 2 * most // 5
    worse = sorted((row for row in rows if gains[row] < 0), key=lambda row: gains[row])[:part]
    better = sorted((row for row in rows if gains[row] > 0), key=lambda row: -gains[row])[:part]
    shown = {*worse, *better}
    others = [row for row in rows if row not in shown]
    return [*worse, *better, *others][:most]


def score(figures: RowFigures) -> Score | None:
    """The means with their intervals, over the rows to which the metric applies; None if there are none.

    Hits have intervals in closed form, which keep a width where all rows agree, and so do those of figures with bounds;
    other means have bootstrap ones.
    """
    there = figures.at(figures.applies)
    base, tuned = there.base, there.tuned
    if not len(base):
        return None
    if np.isin([base, tuned], (0.0, 1.0)).all():
        hits, others = base.astype(bool), tuned.astype(bool)
        intervals = proportion(hits), proportion(others), paired_difference(hits, others)
    else:
        gain = tuned - base if there.higher_is_better else base - tuned
        intervals = _mean(base, there.bounds), _mean(tuned, there.bounds), _mean(gain, _of_difference(there.bounds))
    of_base, of_tuned, improvement = intervals
    return Score(
        metric=there.metric,
        higher_is_better=there.higher_is_better,
        samples=len(base),
        base=of_base,
        tuned=of_tuned,
        improvement=improvement,
    )


def _mean(values: np.ndarray, bounds: tuple[float, float] | None) -> Interval:
    return bounded_mean(values, *bounds) if bounds else mean(values)


def _of_difference(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    return (bounds[0] - bounds[1], bounds[1] - bounds[0]) if bounds else None
