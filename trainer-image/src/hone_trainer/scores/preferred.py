"""What a judge's verdicts show: how often the tuned model is preferred, and whether order or length decided instead.

winRate                    mean over the rows of both orders; a tie counts half. The order's effect cancels out.
lengthControlledWinRate    the same with as much weight for rows in which the tuned answer is longer as for those in
                           which it is shorter, so that a preference for length cancels out as well

Intervals of weighted sums combine those of their parts (MOVER: G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008)
1693): the distance to a bound is the root of the sum of the squared distances.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hone.contract.results import Bounded, Interval, JudgeSummary, Score
from hone_trainer.scores.intervals import bootstrap, bounded_mean, with_levels

WIN_RATE, CONTROLLED = "winRate", "lengthControlledWinRate"
LEAST = 10
"""Rows in which the tuned answer is longer, and rows in which it is shorter, without which length is not controlled."""


class Comparison(NamedTuple):
    """Both verdicts on a row, as points of the tuned model: 1, 0.5 for a tie, or 0.

    Attributes:
        first: where the tuned model's answer came first.
        second: where it came second.
        longer: characters of the tuned model's answer minus those of the base's.
    """

    first: float
    second: float
    longer: int


def summarize(model: str, rows: Sequence[Comparison], unread: int) -> JudgeSummary:
    """What the verdicts show.

    Args:
        model: the judge.
        rows: the rows with two verdicts, at least one.
        unread: rows without.
    """
    first, second = (np.array([getattr(row, name) for row in rows], dtype=float) for name in ("first", "second"))
    longer = np.sign([row.longer for row in rows])
    points = (first + second) / 2
    of_first = bounded_mean((first + 1 - second) / 2, 0.0, 1.0)
    same = bounded_mean((first == second).astype(float), 0.0, 1.0)
    controlled, by_length = _by_length(points, longer)
    scores = [_score(CONTROLLED, controlled, len(rows))] if controlled else []
    is_blind = _beyond_chance(first, second).lower <= 0
    return JudgeSummary(
        model=model,
        scores=[*scores, _score(WIN_RATE, bounded_mean(points, 0.0, 1.0), len(rows))],
        ties=float(np.concatenate([first == 0.5, second == 0.5]).mean()),
        unread=unread,
        agreement=_shown(same),
        first_preferred=_shown(of_first),
        longer_preferred=_shown(by_length) if by_length else None,
        is_blind=is_blind,
        warnings=_warnings(is_blind, same, of_first, by_length, longer) or None,
    )


def _score(metric: str, share: Interval, rows: int) -> Score:
    """The share of wins next to that of the base, which is what is left of 1."""
    base = combined([(-1.0, share)], 1.0)
    return Score(
        metric=metric,
        higher_is_better=True,
        samples=rows,
        base=_shown(base),
        tuned=share,
        improvement=combined([(2.0, share)], -1.0),
    )


def _by_length(points: np.ndarray, longer: np.ndarray) -> tuple[Interval | None, Interval | None]:
    """The share of wins at equal weights of longer and shorter answers, and the share of wins of longer answers."""
    if min((longer > 0).sum(), (longer < 0).sum()) < LEAST:
        return None, None
    above, below = bounded_mean(points[longer > 0], 0.0, 1.0), bounded_mean(points[longer < 0], 0.0, 1.0)
    other = float((longer == 0).mean())
    parts = [((1 - other) / 2, above), ((1 - other) / 2, below)]
    if other:
        parts.append((other, bounded_mean(points[longer == 0], 0.0, 1.0)))
    return combined(parts, 0.0), combined([(0.5, above), (-0.5, below)], 0.5)


def combined(parts: Sequence[tuple[float, Interval]], constant: float) -> Interval:
    """The weighted sum of independent figures, plus a constant."""

    def bounds(confidence: float) -> tuple[float, float]:
        below, above = 0.0, 0.0
        for weight, part in parts:
            lower, upper = part.at(confidence) or (-math.inf, math.inf)
            reach = sorted((weight * (lower - part.value), weight * (upper - part.value)))
            below, above = below + reach[0] ** 2, above + reach[1] ** 2
        return value - math.sqrt(below), value + math.sqrt(above)

    value = constant + sum(weight * part.value for weight, part in parts)
    return with_levels(value, bounds)


def _beyond_chance(first: np.ndarray, second: np.ndarray) -> Interval:
    """How much more often both orders agree than verdicts do that ignore the answers, but keep the order's effect."""
    picked_first = ((first == 1.0).astype(float) + (second == 0.0)) / 2
    picked_second = ((first == 0.0).astype(float) + (second == 1.0)) / 2
    ties = ((first == 0.5).astype(float) + (second == 0.5)) / 2
    same = (first == second).astype(float)

    def excess(rows: np.ndarray) -> np.ndarray:
        one, other, none = (figure[rows].mean(axis=1) for figure in (picked_first, picked_second, ties))
        beyond: np.ndarray = same[rows].mean(axis=1) - 2 * one * other - none**2
        return beyond

    return bootstrap(excess, len(first))


def _warnings(
    is_blind: bool, same: Interval, of_first: Interval, by_length: Interval | None, longer: np.ndarray
) -> list[str]:
    sentences = []
    if is_blind:
        sentences.append(
            f"The verdicts are not shown to depend on the answers: {same.value:.0%} are the same in both orders, which "
            "is about as many as by chance. A gate does not count them."
        )
    if _excludes_half(of_first):
        place = "first" if of_first.value > 0.5 else "second"
        share = max(of_first.value, 1 - of_first.value)
        sentences.append(
            f"The judge prefers the answer that comes {place}: {share:.0%} of the verdicts. Both orders are asked, so "
            "neither model gains by it."
        )
    if by_length is not None and _excludes_half(by_length):
        kind = "longer" if by_length.value > 0.5 else "shorter"
        share = max(by_length.value, 1 - by_length.value)
        sentences.append(
            f"The judge prefers {kind} answers: {share:.0%} of the verdicts, whichever model gave them. {CONTROLLED} "
            "leaves that out."
        )
    if by_length is None and (longer != 0).mean() > 0.1:
        sentences.append(
            f"Whether length decides cannot be seen: the tuned answer is longer in {(longer > 0).sum()} rows and "
            f"shorter in {(longer < 0).sum()}, and {LEAST} of each are needed."
        )
    return sentences


def _excludes_half(interval: Interval) -> bool:
    return interval.lower > 0.5 or interval.upper < 0.5


def _shown(interval: Interval) -> Bounded:
    return Bounded(value=interval.value, lower=interval.lower, upper=interval.upper)
