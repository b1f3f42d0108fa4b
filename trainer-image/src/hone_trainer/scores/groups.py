"""Scores of groups of the test rows: whom the tuned model serves worse than others.

What is said of the worst group and of the gap must hold for all groups together, since the worst of many looks bad by
chance. With L(g), U(g) the bounds of group g at confidence 1 - a, and U*(g) those at 1 - a / k for k groups:

    worst value    between min L(g) and min U*(g): the truly worst group is above its own L, and no U* is too low
    gap            between max L*(g) - min U*(g), at least 0, and max U*(g) - min L*(g)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hone.contract.results import CONFIDENCE, LEVELS, GroupScore, GroupSummary, Interval, Score
from hone_trainer.scores.figures import RowFigures, score
from hone_trainer.scores.intervals import with_levels

LEAST_ROWS = 30
"""Rows that a group needs for a score."""
NO_GROUP = "(none)"
_SHOWN = 6


class _Group(NamedTuple):
    """A group with the score of its rows."""

    name: str
    score: Score


def summarize(column: str, groups: Sequence[str], figures: RowFigures) -> GroupSummary:
    """The scores of all groups.

    Args:
        column: the user's name of the column.
        groups: the group of each row; "": none, which is a group of its own.
        figures: the main metric of each row.
    """
    names = np.array([name or NO_GROUP for name in groups])
    there = figures.applies
    large = [name for name in sorted({*names}) if (there & (names == name)).sum() >= LEAST_ROWS]
    scored = [_Group(name, one) for name in large if (one := score(figures.at(names == name))) is not None]
    sign = 1 if figures.higher_is_better else -1
    scored.sort(key=lambda group: sign * group.score.tuned.value)
    summary = GroupSummary(
        column=column,
        metric=figures.metric,
        higher_is_better=figures.higher_is_better,
        count=len(scored),
        insufficient=len({*names}) - len(scored),
    )
    if not scored:
        return summary
    return summary.model_copy(
        update={
            "samples": min(group.score.samples for group in scored),
            "worst": _least([group.score.tuned for group in scored], sign),
            "worst_improvement": _least([group.score.improvement for group in scored], 1),
            "gap": _gap([group.score.tuned for group in scored]) if len(scored) > 1 else None,
            "groups": [_shown(group) for group in scored[:_SHOWN]],
        }
    )


def _shown(group: _Group) -> GroupScore:
    one = group.score
    # For reading alone: what the gate compares is the worst of all groups.
    tuned, improvement = (each.model_copy(update={"levels": None}) for each in (one.tuned, one.improvement))
    return GroupScore(name=group.name, samples=one.samples, tuned=tuned, improvement=improvement)


def _least(intervals: Sequence[Interval], sign: int) -> Interval:
    """The worst of the values, the least if `sign` is 1 and else the largest, with its interval."""

    def bounds(confidence: float) -> tuple[float, float]:
        own = [_signed(interval, confidence, sign) for interval in intervals]
        of_all = _simultaneous(intervals, confidence, sign)
        # Without bounds at so high a confidence, the loosest of the groups' own: one of them is the worst group's.
        upper = min(upper for _, upper in of_all) if of_all else max(upper for _, upper in own)
        lower, upper = sorted((sign * min(lower for lower, _ in own), sign * upper))
        return lower, upper

    return with_levels(sign * min(sign * interval.value for interval in intervals), bounds)


def _gap(intervals: Sequence[Interval]) -> Interval:
    values = [interval.value for interval in intervals]
    shown = _simultaneous(intervals, CONFIDENCE, 1) or [_signed(interval, LEVELS[-1], 1) for interval in intervals]
    lower, upper = _between(shown)
    # A gate compares only bounds that hold for all groups together.
    known = {level: _simultaneous(intervals, level, 1) for level in LEVELS}
    levels = {str(level): [*_between(groups)] for level, groups in known.items() if groups}
    return Interval(value=max(values) - min(values), lower=lower, upper=upper, levels=levels or None)


def _between(groups: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Bounds of the difference between the best and the worst group, by the bounds of all."""
    lowers, uppers = [lower for lower, _ in groups], [upper for _, upper in groups]
    return max(0.0, max(lowers) - min(uppers)), max(uppers) - min(lowers)


def _simultaneous(intervals: Sequence[Interval], confidence: float, sign: int) -> list[tuple[float, float]]:
    """Bounds of all intervals that hold together (Bonferroni); [] where there are none at so high a confidence."""
    each = 1 - (1 - confidence) / len(intervals)
    return [] if each > LEVELS[-1] else [_signed(interval, each, sign) for interval in intervals]


def _signed(interval: Interval, confidence: float, sign: int) -> tuple[float, float]:
    bounds = interval.at(confidence)
    if bounds is None:
        raise ValueError(f"no bounds at {confidence}")
    lower, upper = sorted(sign * bound for bound in bounds)
    return lower, upper
