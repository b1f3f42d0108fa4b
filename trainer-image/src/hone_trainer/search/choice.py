"""The choice after all trials: the best settings where they are clearly better than the plan's, else the plan's."""

import json
from collections.abc import Callable, Sequence

import numpy
from optuna.trial import FrozenTrial, TrialState

from hone.contract.results import CONFIDENCE, LEVELS, Interval
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
from hone_trainer.scores.preferred import combined
from hone_trainer.search.study import REASON, STEPS, settings

_STATES = {TrialState.COMPLETE: "Complete", TrialState.PRUNED: "Pruned", TrialState.FAIL: "Failed"}


def summary(
    planned: PlannedSearch, ended: Sequence[FrozenTrial], outcome: str | None = None, *, rewarded: bool = False
) -> SearchSummary:
    """The figures of the trials that have ended; arguments as of `choose`."""
    best = _best(ended, rewarded=rewarded)
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
    planned: PlannedSearch,
    ended: Sequence[FrozenTrial],
    figures_of: Callable[[int], Sequence[float]],
    *,
    rewarded: bool = False,
) -> SearchRecord:
    """The record of a search that has ended.

    Args:
        planned: the trials.
        ended: its trials, trial 0 with the plan's settings first.
        figures_of: the losses of a complete trial on the validation rows, by batch; or its rewards, by step.
        rewarded: whether trials are judged by their reward, the higher the better, and not by a loss.
    """
    if not ended:
        shown = summary(planned, ended, "The plan's settings are trained: no trial fits into memory without ZeRO.")
        return SearchRecord(summary=shown, chosen=Values(), trials=[])
    best, defaults = _best(ended, rewarded=rewarded), ended[0]
    records = [_record(trial, rewarded=rewarded) for trial in ended]
    if best is None or best.number == 0:
        name = "reward" if rewarded else "loss"
        why = "no other trial was better" if best else f"no trial ended with a finite {name}"
        shown = summary(planned, ended, f"The plan's settings are trained: {why}.", rewarded=rewarded)
        return SearchRecord(summary=shown, chosen=Values(), trials=records)
    if defaults.state is not TrialState.COMPLETE:
        why = f"The settings of trial {best.number} are trained: those of the plan failed."
        shown = summary(planned, ended, why, rewarded=rewarded)
        return SearchRecord(summary=shown, chosen=settings(best), trials=records)
    before, after = (numpy.array(figures_of(number)) for number in (0, best.number))
    interval = _excess(after, before) if rewarded else _excess(before, after)
    confidence = confidence_of(len(ended) - 1)
    lower, upper = interval.at(confidence) or (interval.lower, interval.upper)
    better = lower > 0
    what = f"reward {interval.value:.4g} higher" if rewarded else f"loss {interval.value:.4g} lower"
    figures = f"{what}, {lower:.4g} to {upper:.4g} at {confidence:.3%}"
    outcome = (
        f"The settings of trial {best.number} are trained: {figures}."
        if better
        else f"The defaults were as good and are trained: trial {best.number} has a {figures}."
    )
    return SearchRecord(
        summary=summary(planned, ended, outcome, rewarded=rewarded),
        chosen=settings(best) if better else Values(),
        trials=records,
        improvement=[interval.value, lower, upper],
        confidence=confidence,
    )


def _excess(one: numpy.ndarray, other: numpy.ndarray) -> Interval:
    """How much higher the figures of a trial are, paired; not paired where batches have become smaller since, as memory
    ran out."""
    if len(one) == len(other):
        return intervals.mean(one - other)
    return combined([(1.0, intervals.mean(one)), (-1.0, intervals.mean(other))], 0.0)


def confidence_of(compared: int) -> float:
    """The confidence of an interval of the best of so many trials against the defaults, so that all hold together.

    By Bonferroni's correction, at the next of the confidences that are computed.
    """
    needed = 1 - (1 - CONFIDENCE) / max(1, compared)
    return next((level for level in sorted((CONFIDENCE, *LEVELS)) if level >= needed), max(LEVELS))


def encoded(figures: Sequence[float]) -> bytes:
    """Losses or rewards as the content of a file."""
    return json.dumps(list(figures)).encode()


def decoded(content: bytes) -> list[float]:
    """Losses or rewards from the content of a file."""
    return [float(figure) for figure in json.loads(content)]


def _best(ended: Sequence[FrozenTrial], *, rewarded: bool) -> FrozenTrial | None:
    """The earliest of the trials with the lowest loss, or the highest reward, at their end."""
    complete = [trial for trial in ended if trial.state is TrialState.COMPLETE]
    sign = -1.0 if rewarded else 1.0
    return min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)


def _record(trial: FrozenTrial, *, rewarded: bool) -> TrialRecord:
    name = "reward" if rewarded else "loss"
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        parameters=settings(trial),
        steps=trial.user_attrs[STEPS],
        curve=[CurvePoint(step=step, **{name: value}) for step, value in sorted(trial.intermediate_values.items())],
        reason=trial.user_attrs.get(REASON),
    )
