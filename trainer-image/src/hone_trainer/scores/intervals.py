"""Two-sided 95 % intervals: of means by bootstrap, of proportions in closed form, of differences paired by row."""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from hone.contract.results import Interval

CONFIDENCE = 0.95
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_SEED = 20_240_517  # any; the same data must give the same interval
_CHUNK = 4_000_000  # indices drawn at a time: 32 MB


def mean(values: np.ndarray) -> Interval:
    """The mean of one figure per row, and its bootstrap percentile interval.

    For differences of two models' figures of the same rows, this is the paired bootstrap.

    Args:
        values: shape [rows], at least one row.
    """
    return bootstrap(lambda rows: values[rows].mean(axis=1), len(values))


def bootstrap(figure: Callable[[np.ndarray], np.ndarray], count: int) -> Interval:
    """A figure over all rows, and its bootstrap percentile interval.

    Args:
        figure: gives the figure of each sample, shape [samples], for indices of its rows, shape [samples, rows].
        count: rows there are, at least one.
    """
    tails = 50 * (1 - CONFIDENCE)
    figures = np.concatenate([figure(rows) for rows in _resampled(count)])
    lower, upper = np.percentile(figures, [tails, 100 - tails])
    return Interval(value=float(figure(np.arange(count)[None])[0]), lower=float(lower), upper=float(upper))


def proportion(hits: np.ndarray) -> Interval:
    """The share of hits and its Wilson score interval, which is sound at 0 and 1, where a bootstrap has no width.

    Args:
        hits: booleans, shape [rows], at least one row.
    """
    count, share = len(hits), float(hits.mean())
    center = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return Interval(value=share, lower=min(share, center - half), upper=max(share, center + half))


def paired_difference(base: np.ndarray, tuned: np.ndarray) -> Interval:
    """The share of hits of `tuned` minus that of `base` on the same rows, with Newcombe's hybrid score interval.

    Like McNemar's test it takes the pairing into account; unlike the bootstrap it keeps a width when all rows agree.
    R. G. Newcombe, Statistics in Medicine 17 (1998) 2635, method 10.

    Args:
        base, tuned: booleans, shape [rows], at least one row.
    """
    both, only_tuned = int((base & tuned).sum()), int((~base & tuned).sum())
    only_base, neither = int((base & ~tuned).sum()), int((~base & ~tuned).sum())
    first, second = proportion(tuned), proportion(base)
    margins = (both + only_tuned) * (only_base + neither) * (both + only_base) * (only_tuned + neither)
    covariance = float(both * neither - only_tuned * only_base)
    if covariance > 0:
        covariance = max(covariance - len(base) / 2, 0.0)
    phi = covariance / math.sqrt(margins) if margins else 0.0

    def reach(mine: float, other: float) -> float:
        return math.sqrt(max(0.0, mine**2 - 2 * phi * mine * other + other**2))

    difference = first.value - second.value
    return Interval(
        value=difference,
        lower=max(-1.0, difference - reach(first.value - first.lower, second.upper - second.value)),
        upper=min(1.0, difference + reach(first.upper - first.value, second.value - second.lower)),
    )


def _resampled(count: int) -> Iterator[np.ndarray]:
    """Indices of `RESAMPLES` samples with replacement, some at a time; the same ones for the same count."""
    chance = np.random.default_rng(_SEED)
    per_chunk = max(1, _CHUNK // count)
    for done in range(0, RESAMPLES, per_chunk):
        yield chance.integers(0, count, size=(min(per_chunk, RESAMPLES - done), count))
