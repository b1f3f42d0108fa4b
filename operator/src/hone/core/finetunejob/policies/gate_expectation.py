"""What the test rows can show about a gate, said before anything is trained."""

import math
from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

from hone.api.gate import Gate, GateRule, Rows
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import Evaluation
from hone.core import figures
from hone.core.finetunejob.policies.gate import LEAST_ROWS, MAX_ROWS

POWER = 0.8
"""How often a rule should pass where the model is as good as assumed."""
CHANGED = 0.25
"""Assumed share of the rows that one of both models answers correctly and the other does not."""
SHARES = ("exactMatch", "accuracy", "pairAccuracy", "preferenceAccuracy", "rewardAccuracy", "toolCalls")
"""Metrics that are shares of the rows."""


class Need(NamedTuple):
    """A field of `evaluation` without which some rows are not scored.

    Attributes:
        name: in Python.
        alias: in the spec.
    """

    name: str
    alias: str


NEEDS: Mapping[Rows, Need] = {
    Rows.WORST_GROUP: Need("group_by", "groupBy"),
    Rows.RETENTION: Need("retention", "retention"),
    Rows.GROUP_GAP: Need("group_by", "groupBy"),
    Rows.JUDGE: Need("judge", "judge"),
    Rows.BENCHMARK: Need("benchmarks", "benchmarks"),
}
"""What rules about other rows than all test rows need."""


def expectation(gate: Gate, objective: Objective, rows: int, evaluation: Evaluation) -> list[str]:
    """What to know about the gate before training, in sentences.

    Args:
        gate: the gate.
        objective: the run's objective.
        rows: test rows that will be scored.
        evaluation: what else is scored.
    """
    return [_smallest(gate, rows), *_unmet(gate, objective, rows, evaluation)]


def warnings(gate: Gate, objective: Objective, rows: int, evaluation: Evaluation) -> list[str]:
    """Those sentences that ask for a change: rules that cannot be expected to pass."""
    unmet = _unmet(gate, objective, rows, evaluation)
    return [_smallest(gate, rows), *unmet] if rows < LEAST_ROWS else unmet


def _unmet(gate: Gate, objective: Objective, rows: int, evaluation: Evaluation) -> list[str]:
    of = {rule.of for rule in gate.rules}
    missing = [
        f"spec.gate.rules: of: {rows_of} needs spec.evaluation.{need.alias}, without which its rule cannot pass"
        for rows_of, need in NEEDS.items()
        if rows_of in of and not getattr(evaluation, need.name)
    ]
    known = [each.name for each in evaluation.benchmarks or []]
    missing += [
        f"spec.gate.rules: spec.evaluation.benchmarks has no {rule.benchmark}, without which its rule cannot pass"
        for rule in gate.rules
        if known and rule.of is Rows.BENCHMARK and rule.benchmark not in known
    ]
    return [*missing, *(words for rule in gate.rules for words in _of_rule(gate, rule, objective, rows))]


def smallest_effect(rows: int, confidence: float) -> float:
    """The true difference of two shares that so many paired rows show with probability `POWER`."""
    return _quantiles(confidence) * math.sqrt(CHANGED / rows)


def needed_rows(effect: float, confidence: float) -> int:
    """Rows that show such a difference with probability `POWER`."""
    return math.ceil(CHANGED * (_quantiles(confidence) / effect) ** 2)


def _quantiles(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2) + NormalDist().inv_cdf(POWER)


def _smallest(gate: Gate, rows: int) -> str:
    if rows < LEAST_ROWS:
        return f"spec.gate: {rows} test rows decide nothing; at least {LEAST_ROWS} are needed"
    effect = smallest_effect(rows, gate.confidence)
    return (
        f"{rows:,} test rows can show that a share such as exactMatch differs by about {figures.text(effect)} or more; "
        f"{4 * rows:,} rows would show half of that (in {POWER:.0%} of runs, if {CHANGED:.0%} of the answers change)"
    )


def _of_rule(gate: Gate, rule: GateRule, objective: Objective, rows: int) -> Iterator[str]:
    if rule.of is not Rows.TEST:
        return
    facts = OBJECTIVES[objective]
    metric = rule.metric or facts.metric
    if rule.metric and facts.metrics and rule.metric not in facts.metrics:
        yield (
            f"spec.gate.rules: {rule.metric} is not scored with objective {objective}, so its rule cannot pass; use "
            f"{' or '.join(facts.metrics)}"
        )
        return
    regression = rule.max_regression
    if regression is None or metric not in SHARES or rows < LEAST_ROWS:
        return
    if regression < smallest_effect(MAX_ROWS, gate.confidence):
        yield (
            f"spec.gate.rules: {metric} regression <= {regression:g} passes only if the model is truly better than the "
            "base"
        )
    elif (needed := needed_rows(regression, gate.confidence)) > rows:
        yield (
            f"spec.gate.rules: a model as good as the base passes {metric} regression <= {regression:g} in {POWER:.0%} "
            f"of runs only with about {needed:,} test rows; there are {rows:,}"
        )
