"""When a run has diverged: a pure rule on its steps' losses.

A run has diverged if either of these holds:

- `MAX_NONFINITE_STEPS` steps in a row have a loss or a gradient that is not finite;
- `MAX_HIGH_STEPS` steps in a row have a loss above `HIGH_FACTOR` times the median of those before. Not before
  `MIN_LOSSES` of them are known; and not for objectives whose loss is no measure of quality, as in reinforcement
  learning.

The figures are practitioners' experience (DESIGN, section 6).
"""

from bisect import insort

MAX_NONFINITE_STEPS = 3
MAX_HIGH_STEPS = 20
HIGH_FACTOR = 3.0
MIN_LOSSES = 20


class Divergence:
    """Follows one attempt's losses. Every rank gives it the same figures, so all reach the same verdict.

    Args:
        measures: whether the loss is a measure, so that a high one says something.
    """

    def __init__(self, *, measures: bool = True) -> None:
        self._measures = measures
        self._losses: list[float] = []
        """Those of steps that were neither high nor in doubt, sorted."""
        self._high: list[float] = []
        """Those of the steps in a row that were high."""
        self._nonfinite = 0

    def take(self, loss: float, *, finite: bool) -> None:
        """Add a step.

        Args:
            loss: its mean over all ranks; without meaning where it is not finite.
            finite: whether loss and gradient were finite on every rank.
        """
        if not finite:
            self._nonfinite += 1
            return
        self._nonfinite = 0
        median = self.median if self._measures else None
        if median is not None and loss > HIGH_FACTOR * median:
            self._high.append(loss)
            return
        for known in (*self._high, loss):
            insort(self._losses, known)
        self._high.clear()

    @property
    def median(self) -> float | None:
        """Median of the losses so far, without those of a streak; None while they are too few or not positive."""
        count = len(self._losses)
        if count < MIN_LOSSES:
            return None
        middle = (self._losses[(count - 1) // 2] + self._losses[count // 2]) / 2
        return middle if middle > 0 else None

    @property
    def nonfinite(self) -> bool:
        """Whether the last step was not finite."""
        return self._nonfinite > 0

    @property
    def high(self) -> bool:
        """Whether the loss of the last finite steps was too high."""
        return bool(self._high)

    @property
    def verdict(self) -> str | None:
        """How the run diverged, in a sentence; None while it has not."""
        if self._nonfinite >= MAX_NONFINITE_STEPS:
            return f"the loss or its gradient was not a finite number for {self._nonfinite} steps in a row"
        if len(self._high) >= MAX_HIGH_STEPS:
            return (
                f"the loss was above {HIGH_FACTOR:g} times its median of {self.median:.4g} for {len(self._high)} steps "
                f"in a row, most recently {self._high[-1]:.4g}"
            )
        return None
