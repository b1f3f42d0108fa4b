"""The choice after all trials: the best settings where they are clearly better than the plan's, else the plan's."""

import json
from collections.abc import Callable, Sequence

import numpy
from optuna.trial import FrozenTrial, TrialState

from hone.contract.results import CONFIDENCE, LEVELS
from hone.contract.search import (
    BestTrial,
    CurvePoint,
    PlannedSearch,
    SearchRecord,
    SearchSummary,
    TrialRecord,
    Values,
)
from hone_trainer.scores import intervals
from hone_trainer.search.study import REASON, STEPS, settings

_STATES = {TrialState.COMPLETE: "Complete", TrialState.PRUNED: "Pruned", TrialState.FAIL: "Failed"}


def summary(planned: PlannedSearch, ended: Sequence[FrozenTrial], outcome: str | None = None) -> SearchSummary:
    """The figures of the trials that have ended."""
    best = _best(ended)
    return SearchSummary(
        trials=planned.trials,
        done=len(ended),
        pruned=sum(trial.state is TrialState.PRUNED for trial in ended),
        spent=sum(trial.user_attrs[STEPS] for trial in ended),
        best=None
        if best is None
        else BestTrial(number=best.number, value=best.value or 0.0, parameters=settings(best)),
        outcome=outcome,
    )


def choose(
    planned: PlannedSearch, ended: Sequence[FrozenTrial], losses_of: Callable[[int], Sequence[float]]
) -> SearchRecord:
    """The record of a search whose trials have all ended.

    Args:
        planned: the trials.
        ended: all of them, trial 0 with the plan's settings first.
        losses_of: the losses of a complete trial on the validation rows, by batch.
    """
    best, defaults = _best(ended), ended[0]
    records = [_record(trial) for trial in ended]
    if best is None or best.number == 0:
        why = "no other trial was better" if best else "no trial ended with a finite loss"
        shown = summary(planned, ended, f"The plan's settings are trained: {why}.")
        return SearchRecord(summary=shown, chosen=Values(), trials=records)
    if defaults.state is not TrialState.COMPLETE:
        shown = summary(planned, ended, f"The settings of trial {best.number} are trained: those of the plan failed.")
        return SearchRecord(summary=shown, chosen=settings(best), trials=records)
    gains = numpy.array(losses_of(0)) - numpy.array(losses_of(best.number))
    interval, confidence = intervals.mean(gains), confidence_of(len(ended) - 1)
    lower, upper = interval.at(confidence) or (interval.lower, interval.upper)
    better = lower > 0
    figures = f"loss {interval.value:.4g} lower, {lower:.4g} to {upper:.4g} at {confidence:.3%}"
    outcome = (
        f"The settings of trial {best.number} are trained: {figures}."
        if better
        else f"The defaults were as good and are trained: trial {best.number} has a {figures}."
    )
    return SearchRecord(
        summary=summary(planned, ended, outcome),
        chosen=settings(best) if better else Values(),
        trials=records,
        improvement=[interval.value, lower, upper],
        confidence=confidence,
    )


def confidence_of(compared: int) -> float:
    """The confidence of an interval of the best of so many trials against the defaults, so that all hold together.

    By Bonferroni's correction, at the next of the confidences that are computed.
    """
    needed = 1 - (1 - CONFIDENCE) / max(1, compared)
    return next((level for level in sorted((CONFIDENCE, *LEVELS)) if level >= needed), max(LEVELS))


def encoded(losses: Sequence[float]) -> bytes:
    """Losses as the content of a file."""
    return json.dumps(list(losses)).encode()


def decoded(content: bytes) -> list[float]:
    """Losses from the content of a file."""
    return [float(loss) for loss in json.loads(content)]


def _best(ended: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The earliest of the trials with the lowest loss at their end."""
    complete = [trial for trial in ended if trial.state is TrialState.COMPLETE]
    return min(complete, key=lambda trial: trial.value or 0.0, default=None)


def _record(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        parameters=settings(trial),
        steps=trial.user_attrs[STEPS],
        curve=[CurvePoint(step=step, loss=loss) for step, loss in sorted(trial.intermediate_values.items())],
        reason=trial.user_attrs.get(REASON),
    )
