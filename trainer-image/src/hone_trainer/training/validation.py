"""What the losses on the validation rows say so far: which step was the best, and whether the model overfits.

Everything follows from the Trainer's own history, which each checkpoint stores: a run that is resumed knows as much as
one that was never interrupted, and all ranks know the same.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVAL_LOSS = "eval_loss"
STATE_FILE = "trainer_state.json"
"""What transformers names it (`TRAINER_STATE_NAME`): the launcher, which reads it too, imports no torch."""
RISING_AFTER, RISING_SHARE = 2, 0.01
"""The loss counts as rising after so many evaluations since the best one, and by so large a share: one may be noise."""


@dataclass(frozen=True)
class Validation:
    """The evaluations of a run up to now.

    Attributes:
        losses: step and loss of each, in order; losses that are no number are left out.
    """

    losses: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> "Validation":
        """The evaluations in a Trainer's `log_history`."""
        entries = ((int(entry["step"]), float(entry[EVAL_LOSS])) for entry in history if EVAL_LOSS in entry)
        return cls(tuple((step, loss) for step, loss in entries if math.isfinite(loss)))

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and loss of the earliest one with the lowest loss."""
        return min(self.losses, key=lambda item: item[1], default=None)

    @property
    def since_best(self) -> int:
        """Evaluations after the best one: none of them was better."""
        best = self.best
        return sum(step > best[0] for step, _ in self.losses) if best else 0

    def loss_at(self, step: int) -> float | None:
        """The loss at a step; None: it was not evaluated there."""
        return next((loss for at, loss in reversed(self.losses) if at == step), None)

    def improved_at(self, step: int) -> bool:
        """Whether the evaluation at a step is better than all before."""
        return self.best is not None and self.best[0] == step

    @property
    def warning(self) -> str | None:
        """That the loss rises, in a sentence of at most 256 characters; None: it does not."""
        if self.best is None or self.since_best < RISING_AFTER:
            return None
        (since, lowest), (step, loss) = self.best, self.losses[-1]
        if loss <= lowest + RISING_SHARE * abs(lowest):
            return None
        return (
            f"The loss on the validation rows rises since step {since}: from {lowest:.4g} to {loss:.4g} at step "
            f"{step}. The model overfits its training rows."
        )


def validation_of(checkpoint: Path) -> Validation:
    """The evaluations up to a checkpoint, from the history that the Trainer stores in it; none if it cannot be read."""
    try:
        return Validation.of(json.loads((checkpoint / STATE_FILE).read_text())["log_history"])
    except (OSError, ValueError, KeyError, TypeError):
        return Validation()
