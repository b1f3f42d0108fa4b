"""The history of a run's figures in `<run>/history.json`, which survives resumes and never exceeds a size.

Rank 0 of each attempt continues the file of the one before: what came after the step that it resumes from is left out,
because these steps are done again. Neighbors are merged once there are too many points, so that all points of a run
cover as many log lines, except the last one.
"""

import contextlib
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone.contract.history import (
    MAX_EVALUATIONS,
    MAX_POINTS,
    MAX_RESUMES,
    EvaluationPoint,
    History,
    HistoryPoint,
)
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.history import HISTORY_FILE, load_history
from hone_trainer.protocol.host import own_memory
from hone_trainer.training.callbacks import Reporting

WRITE_SECONDS = 30.0
"""Least time between two writes that no checkpoint demands."""
_DIGITS = 6

N = TypeVar("N", int, float)

logger = logging.getLogger(__name__)


class Recording(TrainerCallback):
    """Records what `Reporting` reports, on rank 0. A history that cannot be written never ends a run.

    Args:
        config: where the history is.
        reports: the callback with the rank's figures; it must come before this one.
        resumed_from: step of the checkpoint that this attempt resumes from; None: it starts from the base model.
    """

    def __init__(self, config: RunConfig, reports: Reporting, resumed_from: int | None) -> None:
        self._path = Path(config.paths.run) / HISTORY_FILE
        self._reports = reports
        self._before = before(load_history(config), resumed_from or 0)
        resumes = [*self._before.resumed_at, *([resumed_from] if resumed_from else [])]
        self.history = self._before.model_copy(update={"resumed_at": resumes[-MAX_RESUMES:]})
        self._written = time.monotonic()
        self._failed = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Add a log line of training."""
        if not logs or "loss" not in logs or args.process_index:
            return
        now = self._reports.now
        peak = now.gpu_peak_bytes
        point = HistoryPoint(
            step=state.global_step,
            loss=_finite(now.loss),
            reward=_finite(now.reward),
            learning_rate=_finite(now.learning_rate),
            grad_norm=_finite(now.grad_norm),
            tokens_per_second=_finite(now.tokens_per_second),
            memory_bytes=own_memory("VmHWM") if peak is None else peak,
            tokens=self._before.tokens + now.tokens,
            seconds=round(self._before.seconds + self._reports.training_seconds, 1),
        )
        self.history = self.history.model_copy(update={"points": added(self.history.points, point)})
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Add a loss on the validation rows."""
        loss = _finite((metrics or {}).get("eval_loss"))
        if loss is None or args.process_index:
            return
        evaluations = [*self.history.evaluations, EvaluationPoint(step=state.global_step, loss=loss)]
        if len(evaluations) > MAX_EVALUATIONS:
            evaluations = evaluations[1::2]
        self.history = self.history.model_copy(update={"evaluations": evaluations})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write what a resume from this checkpoint continues."""
        self._write_on(args)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Write what came after the last checkpoint."""
        self._write_on(args)

    def _write_on(self, args: TrainingArguments) -> None:
        if not args.process_index:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            write_atomic(self._path, self.history.to_json().encode())
        except OSError as error:
            if not self._failed:
                logger.warning("the history cannot be written", extra={"reason": error.strerror})
            self._failed = True


def before(history: History, step: int) -> History:
    """What a history says of the steps up to `step`."""
    return history.model_copy(
        update={
            "points": [point for point in history.points if point.step <= step],
            "evaluations": [each for each in history.evaluations if each.step <= step],
        }
    )


def added(points: list[HistoryPoint], point: HistoryPoint) -> list[HistoryPoint]:
    """The points with one more log line, at most `MAX_POINTS`."""
    most = max((each.lines for each in points), default=1)
    if points and points[-1].lines < most:
        return [*points[:-1], _merged(points[-1], point)]
    points = [*points, point]
    if len(points) <= MAX_POINTS:
        return points
    pairs = [_merged(one, other) for one, other in zip(points[:-1:2], points[1::2], strict=False)]
    return [*pairs, *points[2 * len(pairs) :]]


def _merged(one: HistoryPoint, other: HistoryPoint) -> HistoryPoint:
    """Two neighbors as one point: means by log lines, the later rate, and the larger norm and memory."""
    weights = (one.lines, other.lines)

    def mean(values: Iterable[float | None]) -> float | None:
        known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
        total = sum(weight for _, weight in known)
        return _finite(sum(value * weight for value, weight in known) / total) if total else None

    return HistoryPoint(
        step=other.step,
        lines=sum(weights),
        loss=mean((one.loss, other.loss)),
        reward=mean((one.reward, other.reward)),
        learning_rate=other.learning_rate,
        grad_norm=_larger(one.grad_norm, other.grad_norm),
        tokens_per_second=mean((one.tokens_per_second, other.tokens_per_second)),
        memory_bytes=_larger(one.memory_bytes, other.memory_bytes),
        tokens=other.tokens,
        seconds=other.seconds,
    )


def _larger(*values: N | None) -> N | None:
    return max((value for value in values if value is not None), default=None)


def _finite(value: float | None) -> float | None:
    """A figure with six significant digits; None where it is no finite number."""
    with contextlib.suppress(TypeError, ValueError):
        if value is not None and math.isfinite(value):
            return float(f"{float(value):.{_DIGITS}g}")
    return None
