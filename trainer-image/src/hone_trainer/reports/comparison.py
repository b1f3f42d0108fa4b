"""Two runs next to each other, as text: their scores, what they were trained with, and whether they can be compared."""

import math
from collections.abc import Iterator

from hone.contract.report import Report
from hone.contract.results import Interval, Score
from hone_trainer.reports import text

SAME_ROWS = "Both were scored on the same test rows."
_NO_SETTINGS = ("reasons", "warnings", "memory")


def compare(one: Report, other: Report) -> str:
    """The comparison, warnings first."""
    doubts = list(warnings(one, other))
    sections = {
        f"WARNING ({len(doubts)})": doubts,
        "Runs": [f"A: {_named(one)}", f"B: {_named(other)}"],
        "Scores of the tuned models, with 95 % intervals": list(_scores(one, other)) or ["None of both has the same."],
        "Settings that differ": list(_settings(one, other)) or ["None."],
    }
    if not doubts:
        sections["Runs"].append(SAME_ROWS)
    blocks = [
        "\n".join([title, *(f"  {text.visible(line)}" for line in lines)]) for title, lines in sections.items() if lines
    ]
    return "\n\n".join(blocks)


def warnings(one: Report, other: Report) -> Iterator[str]:
    """Why the scores of two runs say nothing about which is better."""
    for name, report in (("A", one), ("B", other)):
        if report.evaluation is None or not report.evaluation.scores:
            yield f"{name} has no scores."
    yield from _on_rows(one, other)
    if one.max_new_tokens != other.max_new_tokens:
        yield f"Answers had at most {one.max_new_tokens} tokens in A and {other.max_new_tokens} in B."


def _on_rows(one: Report, other: Report) -> Iterator[str]:
    if one.dataset.digest == other.dataset.digest and _rows(one) == _rows(other):
        return
    if one.scored_rows is None or other.scored_rows is None:
        yield "It is unknown whether both were scored on the same test rows: a report is of an older release."
    elif one.scored_rows.references != other.scored_rows.references:
        yield (
            "The test data differ: a difference between the scores may be one between the rows. Score both runs on "
            "one file, set as spec.dataset.test."
        )
    elif one.scored_rows.prompts != other.scored_rows.prompts:
        yield (
            "The references are the same, but the prompts as the models read them differ: by the chat template or "
            "the system prompt, or because these are other rows."
        )


def _rows(report: Report) -> int:
    return _of(report)[0].samples if _of(report) else 0


def _named(report: Report) -> str:
    plan = report.plan
    return (
        f"{report.job.namespace}/{report.job.name}: {plan.objective} with {plan.method} on {report.model_name}, "
        f"{report.final_step} steps, {report.dataset.train_rows} training rows"
    )


def _scores(one: Report, other: Report) -> Iterator[str]:
    theirs = {score.metric: score for score in _of(other)}
    for score in _of(one):
        if match := theirs.get(score.metric):
            better = "higher" if score.higher_is_better else "lower"
            yield (
                f"{score.metric} ({better} is better): A {text.interval(score.tuned)} on {score.samples} rows, "
                f"B {text.interval(match.tuned)} on {match.samples} rows; {_difference(score, match)}"
            )


def _of(report: Report) -> list[Score]:
    return report.evaluation.scores if report.evaluation else []


def _difference(one: Score, other: Score) -> str:
    """B against A. Rows are not paired here, so the interval is wider than one of the same rows would be."""
    sign = 1.0 if one.higher_is_better else -1.0
    middle = sign * (other.tuned.value - one.tuned.value)
    half = math.hypot(_half(one.tuned), _half(other.tuned))
    gain = Interval(value=middle, lower=middle - half, upper=middle + half)
    result = "B is better" if gain.lower > 0 else "A is better" if gain.upper < 0 else "no difference is shown"
    return f"{result} (B's improvement {text.interval(gain)}, rows not paired)"


def _half(interval: Interval) -> float:
    return (interval.upper - interval.lower) / 2


def _settings(one: Report, other: Report) -> Iterator[str]:
    ours, theirs = one.plan.to_dict(), other.plan.to_dict()
    for name in sorted({*ours, *theirs} - {*_NO_SETTINGS}):
        if ours.get(name) != theirs.get(name):
            yield f"{name}: A {_shown(ours.get(name))}, B {_shown(theirs.get(name))}"
    for name in ("digest", "format", "trainOn", "trainRows", "validationRows", "testRows"):
        a, b = one.dataset.to_dict().get(name), other.dataset.to_dict().get(name)
        if a != b:
            yield f"data, {name}: A {_shown(a)}, B {_shown(b)}"
    if one.artifact.base_digest != other.artifact.base_digest:
        yield f"base model: A {_shown(one.artifact.base_digest)}, B {_shown(other.artifact.base_digest)}"


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
