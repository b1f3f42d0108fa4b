"""Ratios of two sides that took turns, with an interval by the bootstrap over turns."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Figure:
    """A value with the 95 % interval around it."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """As JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def shown(figure: dict[str, float]) -> str:
    """A figure's JSON for people."""
    return f"{figure['value']:.3f}   [{figure['low']:.3f}, {figure['high']:.3f}]"


def ratio_of_sums(over: list[float], under: list[float]) -> Figure:
    """sum(over) / sum(under), one of each per turn; turns are resampled, both of a turn together.

    Pairs, and not each side by itself: what else the machine did during a turn met both.

    Raises:
        ValueError: there are fewer than two turns, or not as many of one side as of the other.
    """
    if len(over) != len(under) or len(over) < 2:
        raise ValueError(f"{len(over)} and {len(under)} turns")
    above, below = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(above), size=(RESAMPLES, len(above)))
    ratios = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Figure(float(above.sum() / below.sum()), float(low), float(high))


def ratio_of_medians(over: list[list[float]], under: list[list[float]]) -> Figure:
    """median(over) / median(under) over the values of all turns; turns are resampled, as above."""
    above, below = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(above), size=(RESAMPLES, len(above)))
    ratios = np.median(above[drawn].reshape(RESAMPLES, -1), axis=1) / np.median(
        below[drawn].reshape(RESAMPLES, -1), axis=1
    )
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Figure(float(np.median(above) / np.median(below)), float(low), float(high))
