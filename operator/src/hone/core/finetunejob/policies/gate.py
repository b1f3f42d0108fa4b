"""The gate: whether the scores show that the tuned model meets each rule, by intervals and never by figures alone.

With the gate's confidence c = 1 - α, a rule passes if the lower bound reaches its bar. All rules must pass, so a model
that misses one of them passes with a probability of at most α / 2, however many rules there are (an intersection-union
test: R. L. Berger, Technometrics 24 (1982) 295). A rule fails if the upper bound misses the bar; of several rules, one
may seem to by chance, so that is corrected by Holm's method. What is neither is inconclusive, and not promotable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hone.api.gate import Gate, GateRule, GateStatus, GateVerdict, Rows, RuleResult
from hone.contract.results import CONFIDENCE, LEVELS, EvaluationSummary, Interval, Score
from hone.core import figures, reported

LEAST_ROWS = 30
"""Fewer rows decide nothing: too few for an interval of a mean."""
MAX_ROWS = 10_000_000
"""More rows than this are no advice."""
_ALL_LEVELS = sorted((CONFIDENCE, *LEVELS))


class Bar(NamedTuple):
    """What one field of a rule compares.

    Attributes:
        words: the rule as text; `{metric}` and `{bar}` are filled in.
        figure: the interval of a score that is compared.
        sign: 1 if the figure must reach the bar from below, -1 if it must not exceed it.
        factor: what the field's value is multiplied with for the bar.
        higher_is_better: of which metrics; None: of all.
    """

    words: str
    figure: Callable[[Score], Interval]
    sign: int = 1
    factor: int = 1
    higher_is_better: bool | None = None


BARS: Mapping[str, Bar] = {
    "min": Bar("{metric} >= {bar}", lambda score: score.tuned, higher_is_better=True),
    "max": Bar("{metric} <= {bar}", lambda score: score.tuned, sign=-1, higher_is_better=False),
    "min_improvement": Bar("{metric} improvement >= {bar}", lambda score: score.improvement),
    "max_regression": Bar("{metric} regression <= {bar}", lambda score: score.improvement, factor=-1),
}
"""By the field of a rule."""


class _Checked(NamedTuple):
    """A rule with what it compares.

    Attributes:
        result: what is known about it; inconclusive, until the intervals are compared.
        distances: lower and upper bound minus the bar by confidence, signed so that more is better; None: no interval.
    """

    result: RuleResult
    distances: Mapping[float, tuple[float, float]] | None


def decide(gate: Gate, evaluation: EvaluationSummary) -> GateStatus:
    """What the scores show about the gate's rules."""
    checked = [_check(gate, rule, evaluation) for rule in gate.rules]
    failed = _failed([each.distances for each in checked], 1 - gate.confidence)
    results = [_decided(each, gate.confidence, index in failed) for index, each in enumerate(checked)]
    verdicts = [result.verdict for result in results]
    if GateVerdict.FAIL in verdicts:
        decision = GateVerdict.FAIL
    else:
        decision = GateVerdict.INCONCLUSIVE if GateVerdict.INCONCLUSIVE in verdicts else GateVerdict.PASS
    return GateStatus(
        decision=decision,
        confidence=gate.confidence,
        message=reported.text(_message(decision, results, gate)),
        rules=results,
    )


def _worst_group(evaluation: EvaluationSummary) -> list[Score]:
    """The score of the worst group, with the intervals that hold for all groups; [] where no group is large enough."""
    groups = evaluation.groups
    if groups is None or groups.worst is None or groups.worst_improvement is None:
        return []
    return [
        Score(
            metric=groups.metric,
            higher_is_better=groups.higher_is_better,
            samples=groups.samples,
            base=groups.worst,
            tuned=groups.worst,
            improvement=groups.worst_improvement,
        )
    ]


def _group_gap(evaluation: EvaluationSummary) -> list[Score]:
    """The difference between best and worst group; [] where fewer than two groups are large enough."""
    groups = evaluation.groups
    if groups is None or groups.gap is None:
        return []
    gap = groups.gap
    return [
        Score(
            metric=groups.metric, higher_is_better=False, samples=groups.samples, base=gap, tuned=gap, improvement=gap
        )
    ]


def _benchmark(evaluation: EvaluationSummary, rule: GateRule) -> list[Score]:
    return next((each.scores for each in evaluation.benchmarks or [] if each.name == rule.benchmark), [])


_SCORES: Mapping[Rows, Callable[[EvaluationSummary, GateRule], list[Score]]] = {
    Rows.TEST: lambda evaluation, _: evaluation.scores,
    Rows.WORST_GROUP: lambda evaluation, _: _worst_group(evaluation),
    Rows.RETENTION: lambda evaluation, _: evaluation.retention.scores if evaluation.retention else [],
    Rows.GROUP_GAP: lambda evaluation, _: _group_gap(evaluation),
    Rows.JUDGE: lambda evaluation, _: evaluation.judge.scores if evaluation.judge else [],
    Rows.BENCHMARK: _benchmark,
}
_PLACES: Mapping[Rows, str] = {
    Rows.TEST: "{}",
    Rows.WORST_GROUP: "{} of the worst group",
    Rows.RETENTION: "{} of retention",
    Rows.GROUP_GAP: "{} gap between groups",
    Rows.JUDGE: "{} by the judge",
    Rows.BENCHMARK: "{} of {benchmark}",
}


_BLIND = "the judge's verdicts are not shown to depend on the answers: use another judge"


def bar_of(rule: GateRule) -> tuple[Bar, float]:
    """What a rule compares, and the value of its field.

    Raises:
        ValueError: it has none; the CRD refuses that.
    """
    for name, bar in BARS.items():
        if (value := getattr(rule, name)) is not None:
            return bar, value
    raise ValueError("a rule of spec.gate has no bar")


def _check(gate: Gate, rule: GateRule, evaluation: EvaluationSummary) -> _Checked:
    bar, value = bar_of(rule)
    scores = _SCORES[rule.of](evaluation, rule)
    score = next((each for each in scores if rule.metric in (None, each.metric)), None)
    metric = _PLACES[rule.of].format(score.metric if score else rule.metric or "main metric", benchmark=rule.benchmark)
    result = RuleResult(
        rule=bar.words.format(metric=metric, bar=f"{value:g}"), verdict=GateVerdict.INCONCLUSIVE, bar=bar.factor * value
    )
    if score is None:
        names = ", ".join(each.metric for each in scores) or "nothing"
        return _Checked(result.model_copy(update={"message": f"it was not scored; scored: {names}"}), None)
    figure = bar.figure(score)
    bounds = figure.at(gate.confidence)
    lower, upper = bounds or (None, None)
    result = result.model_copy(update={"value": figure.value, "lower": lower, "upper": upper, "samples": score.samples})
    blind = rule.of is Rows.JUDGE and evaluation.judge is not None and evaluation.judge.is_blind
    if problem := _BLIND if blind else _problem(bar, score, bounds):
        return _Checked(result.model_copy(update={"message": problem}), None)
    return _Checked(result, _distances(figure, bar.sign, result.bar))


def _problem(bar: Bar, score: Score, bounds: tuple[float, float] | None) -> str | None:
    """Why the score's interval cannot be compared with the bar, and what to do; None: it can."""
    if bar.higher_is_better not in (None, score.higher_is_better):
        better, field = ("more", "min") if score.higher_is_better else ("less", "max")
        return f"{better} of it is better: use {field}"
    if bounds is None:
        return "its interval is not known at this confidence: edit spec.evaluation to score again"
    if score.samples < LEAST_ROWS:
        return f"{score.samples} rows decide nothing: at least {LEAST_ROWS} are needed"
    if bounds[0] == bounds[1]:
        return "its interval has no width, so the rows do not show how uncertain it is: use another metric"
    return None


def _distances(figure: Interval, sign: int, bar: float) -> dict[float, tuple[float, float]]:
    by_level = {level: figure.at(level) for level in _ALL_LEVELS}
    signed = {
        level: sorted((sign * (bounds[0] - bar), sign * (bounds[1] - bar)))
        for level, bounds in by_level.items()
        if bounds is not None
    }
    return {level: (lower, upper) for level, (lower, upper) in signed.items()}


def _failed(distances: Sequence[Mapping[float, tuple[float, float]] | None], alpha: float) -> set[int]:
    """The rules that fail, by S. Holm, Scandinavian Journal of Statistics 6 (1979) 65.

    As p-value stands 1 minus the highest confidence that is known at which all of the interval misses the bar.
    """

    def p_value(each: Mapping[float, tuple[float, float]] | None) -> float:
        missed = [level for level, (_, upper) in (each or {}).items() if upper < 0]
        return 1 - max(missed, default=0.0)

    failed = set()
    ranked = sorted((p_value(each), index) for index, each in enumerate(distances))
    for rank, (p, index) in enumerate(ranked):
        if round(p, 6) > round(alpha / (len(ranked) - rank), 6):
            break
        failed.add(index)
    return failed


def _decided(checked: _Checked, confidence: float, failed: bool) -> RuleResult:
    result, distances = checked
    if failed:
        return result.model_copy(update={"verdict": GateVerdict.FAIL})
    if distances is None:
        return result
    lower, upper = next(distances[level] for level in sorted(distances) if level >= confidence)
    if lower >= 0:
        return result.model_copy(update={"verdict": GateVerdict.PASS})
    if upper < 0:
        return result.model_copy(
            update={"message": "all of it misses the bar, but for several rules that is not enough"}
        )
    return result.model_copy(update={"message": _advice(result)})


def _advice(result: RuleResult) -> str | None:
    """How many rows would decide, if the figure stayed: intervals shrink by the square root."""
    if None in (result.value, result.lower, result.upper, result.samples):
        return None
    value, lower, upper, rows = result.value, result.lower, result.upper, result.samples
    margin = abs(value - result.bar)  # type: ignore[operator]
    half = value - lower if value > result.bar else upper - value  # type: ignore[operator]
    ratio = half / margin if margin else math.inf
    # The square of what is larger may be no float.
    if not ratio <= math.sqrt(MAX_ROWS / rows):  # type: ignore[operator]
        return None
    return f"about {rows * ratio**2:,.0f} rows would decide, if the figure stays"  # type: ignore[operator]


def _message(decision: GateVerdict, results: Sequence[RuleResult], gate: Gate) -> str:
    count = f"all {len(results)} rules pass" if len(results) > 1 else "the rule passes"
    rate = f"{100 * (1 - gate.confidence) / 2:.2g} %"
    if decision == GateVerdict.PASS:
        shown = "; ".join(map(_words, results))
        return f"{count} at confidence {gate.confidence:g}: {shown}. A model that misses a bar passes in at most {rate}"
    deciding = next(result for result in results if result.verdict == decision)
    correction = ", corrected for several rules (Holm)" if decision == GateVerdict.FAIL and len(results) > 1 else ""
    words = f"{decision} at confidence {gate.confidence:g}{correction}: {_words(deciding)}"
    return f"{words}; {deciding.message}" if deciding.message else words


def _words(result: RuleResult) -> str:
    if result.value is None or result.lower is None or result.upper is None:
        return result.rule
    return f"{result.rule}: {figures.interval(result.value, result.lower, result.upper)}, {result.samples} rows"
