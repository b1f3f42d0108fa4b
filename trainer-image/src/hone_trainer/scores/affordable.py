"""How many test rows are scored: as many as the time that scoring may take allows, by the speed of some of them."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hone_trainer.data.prepared import chosen_rows

if TYPE_CHECKING:
    from datasets import Dataset

TRIED = 32
"""Rows whose time is measured: a batch of answers where memory allows."""
LEAST = 100
"""Rows that are scored in any case: fewer show next to nothing."""
BOTH = 2
"""The tuned model and its base, of which the tuned one is measured first."""

logger = logging.getLogger(__name__)


def affordable(
    rows: "Dataset", measure: Callable[["Dataset"], object], seconds: float, models: int = BOTH
) -> "Dataset":
    """The rows that the models can be scored on within this time; all of them where no limit is near.

    Args:
        rows: the test rows, at most `evaluation.maxSamples`.
        measure: scores the rows that it gets with one model.
        seconds: most time for all models.
        models: how many have yet to be scored; all are expected to be as fast as the one that is measured.
    """
    if len(rows) <= LEAST:
        return rows
    trial = rows.select(chosen_rows(len(rows), TRIED))
    began = time.monotonic()
    measure(trial)
    per_row = (time.monotonic() - began) / len(trial)
    # The other model is measured as well, when it is loaded.
    measured = (models - 1) * len(trial) * per_row
    count = rows_within(seconds - (time.monotonic() - began) - measured, models * per_row)
    logger.info("scoring speed", extra={"secondsPerRow": round(per_row, 3), "rows": min(count, len(rows))})
    return rows.select(chosen_rows(len(rows), count)) if count < len(rows) else rows


def rows_within(seconds: float, per_row: float) -> int:
    """Rows that fit into a time, at least `LEAST`; in steps of a tenth to a hundredth, so that runs of about the same
    speed have the same rows, and can use each other's base scores."""
    count = max(LEAST, int(max(seconds, 0.0) / max(per_row, 1e-9)))
    step = int(10 ** max(1, len(str(count)) - 2))
    return count // step * step
