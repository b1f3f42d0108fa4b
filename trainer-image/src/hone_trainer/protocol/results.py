"""A step's result as the pod's termination message, which Kubernetes cuts off after 4096 bytes."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import (
    MAX_SCORES,
    MAX_TERMINATION_BYTES,
    TERMINATION_MESSAGE_PATH,
    BenchmarkSummary,
    Bounded,
    GroupSummary,
    Interval,
    JudgeSummary,
    Score,
    StepResult,
)
from hone_trainer.protocol import secrets
from hone_trainer.protocol.errors import MAX_HINT, MAX_MESSAGE, clip

_SECRET = 8
"""Characters of the shortest value of the environment that is left out of a verdict."""
_PUBLIC = re.compile(
    r"HONE_\w+|HOSTNAME|HOME|PATH|PWD|OLDPWD|LANG|LC_\w+|SHELL|USER|KUBERNETES_\w+|\w+_VERSION"
).fullmatch
"""Variables that the image, Kubernetes or Hone sets: pods' names and paths, which messages need."""
TERMINATION_LOG_ENV = "HONE_TERMINATION_LOG"
"""Environment variable with another path for the message, where there is no kubelet."""


def write_result(result: StepResult) -> Path:
    """Write `result` as the pod's termination message and return the path written to.

    Raises:
        OSError: the path cannot be written; nothing else would tell the operator the result.
    """
    path = Path(os.environ.get(TERMINATION_LOG_ENV) or TERMINATION_MESSAGE_PATH)
    # Written in place: the kubelet mounts this very file, so it cannot be renamed over.
    path.write_bytes(encode(without_values(result, os.environ)))
    return path


def without_values(result: StepResult, environment: Mapping[str, str]) -> StepResult:
    """The result, whose verdict names environment variables instead of repeating their values, also those that the step
    has taken from there.

    A value may come from a Secret, and libraries repeat values in their errors.
    """
    if (verdict := result.verdict) is None:
        return result
    values = {name: value for name, value in environment.items() if not _PUBLIC(name)}

    def cleaned(text: str) -> str:
        return secrets.without(secrets.without(text, secrets.withheld), values, _SECRET)

    message, hint = cleaned(verdict.message), cleaned(verdict.hint) if verdict.hint else None
    shorter = {"message": clip(message, MAX_MESSAGE), "hint": clip(hint, MAX_HINT) if hint else None}
    return result.model_copy(update={"verdict": verdict.model_copy(update=shorter)})


def encode(result: StepResult, limit: int = MAX_TERMINATION_BYTES) -> bytes:
    """`result` as at most `limit` bytes of JSON, leaving out what can be missed, in the order of `_SHORTENINGS`.

    Raises:
        ValueError: the result does not fit even without all that.
    """
    for candidate in _ever_shorter(result):
        data = candidate.to_json().encode()
        if len(data) <= limit:
            return data
    raise ValueError(f"the result of {result.step} needs {len(data)} bytes, more than {limit}")


def _ever_shorter(result: StepResult) -> Iterator[StepResult]:
    yield result
    for shorten in _SHORTENINGS:
        result = shorten(result)
        yield result


def _dataset(change: Callable[[DatasetSummary], dict[str, object]]) -> Callable[[StepResult], StepResult]:
    def shorten(result: StepResult) -> StepResult:
        if result.dataset is None:
            return result
        return result.model_copy(update={"dataset": result.dataset.model_copy(update=change(result.dataset))})

    return shorten


def _plan(change: Callable[[Plan], dict[str, object]]) -> Callable[[StepResult], StepResult]:
    def shorten(result: StepResult) -> StepResult:
        if result.plan is None:
            return result
        return result.model_copy(update={"plan": result.plan.model_copy(update=change(result.plan))})

    return shorten


def _example(length: int) -> Callable[[StepResult], StepResult]:
    return _dataset(lambda d: {"example": clip(d.example, length) if d.example and length else None})


def _bad_rows(length: int, most: int) -> Callable[[StepResult], StepResult]:
    return _dataset(
        lambda d: {
            "bad_rows": [
                row.model_copy(update={"reason": clip(row.reason, length), "first": clip(row.first, 100)})
                for row in d.bad_rows[:most]
            ]
        }
    )


def _classes(length: int, most: int) -> Callable[[StepResult], StepResult]:
    return _dataset(
        lambda d: {
            "classes": [
                entry.model_copy(update={"label": clip(entry.label, length)}) for entry in (d.classes or [])[:most]
            ]
            or None
        }
    )


def _sources(most: int) -> Callable[[StepResult], StepResult]:
    return _dataset(lambda d: {"sources": (d.sources or [])[:most] or None})


def _downloads(length: int, most: int) -> Callable[[StepResult], StepResult]:
    return lambda result: result.model_copy(
        update={
            "downloads": [each.model_copy(update={"uri": clip(each.uri, length)}) for each in result.downloads[:most]]
        }
    )


def _sentences(length: int, most: int) -> Callable[[StepResult], StepResult]:
    return _plan(
        lambda p: {
            "reasons": {field: clip(text, length) for field, text in list(p.reasons.items())[:most]},
            "warnings": [clip(text, 2 * length) for text in p.warnings[:most]],
        }
    )


def _verdict(message: int, hint: int) -> Callable[[StepResult], StepResult]:
    def shorten(result: StepResult) -> StepResult:
        if (verdict := result.verdict) is None:
            return result
        shorter = {
            "message": clip(verdict.message, message),
            "hint": clip(verdict.hint, hint) if verdict.hint and hint else None,
        }
        return result.model_copy(update={"verdict": verdict.model_copy(update=shorter)})

    return shorten


def _changes(length: int, most: int) -> Callable[[StepResult], StepResult]:
    # The newest ones: each level of the memory fallback replaces the one before.
    return lambda result: result.model_copy(
        update={"changes": [clip(sentence, length) for sentence in result.changes[-most:]]}
    )


def _fewer_scores(most: int) -> Callable[[StepResult], StepResult]:
    def shorten(result: StepResult) -> StepResult:
        if (evaluation := result.evaluation) is None:
            return result
        return result.model_copy(
            update={"evaluation": evaluation.model_copy(update={"scores": evaluation.scores[:most]})}
        )

    return shorten


def _short_figures(result: StepResult) -> StepResult:
    """Scores to six digits; those that are compared with no bar, without their further bounds."""
    if (evaluation := result.evaluation) is None:
        return result
    retention = evaluation.retention
    if retention is not None:
        scores = [_short_score(score) for score in retention.scores]
        skills = {name: _cut(interval, False) for name, interval in retention.skills.items()}
        retention = retention.model_copy(update={"scores": scores, "skills": skills})
    update = {
        "scores": [_short_score(score) for score in evaluation.scores],
        "groups": _short(evaluation.groups),
        "retention": retention,
        "judge": _short_judge(evaluation.judge),
        "benchmarks": _short_benchmarks(evaluation.benchmarks, MAX_SCORES),
    }
    return result.model_copy(update={"evaluation": evaluation.model_copy(update=update)})


def _short_benchmarks(benchmarks: list[BenchmarkSummary] | None, most: int) -> list[BenchmarkSummary] | None:
    """With fewer scores, of which gates take the first by default, and shorter ones."""
    if benchmarks is None:
        return None
    return [each.model_copy(update={"scores": [_short_score(s) for s in each.scores[:most]]}) for each in benchmarks]


def _short_judge(judge: JudgeSummary | None) -> JudgeSummary | None:
    if judge is None:
        return None
    update: dict[str, object] = {
        name: _cut(share, False)
        for name in ("agreement", "first_preferred", "longer_preferred")
        if (share := getattr(judge, name)) is not None
    }
    return judge.model_copy(update={**update, "scores": [_short_score(score) for score in judge.scores]})


def _others(length: int, most: int) -> Callable[[StepResult], StepResult]:
    """Shorter sentences about what was not scored, and about a judge; fewer of its scores, of which gates take the
    first."""

    def short(texts: list[str] | None) -> list[str] | None:
        return [clip(text, length) for text in texts or []] or None

    def shorten(result: StepResult) -> StepResult:
        if (evaluation := result.evaluation) is None:
            return result
        update: dict[str, object] = {
            "problems": short(evaluation.problems),
            "benchmarks": _short_benchmarks(evaluation.benchmarks, most),
        }
        if (judge := evaluation.judge) is not None:
            fewer = {"scores": judge.scores[:most], "warnings": short(judge.warnings)}
            update["judge"] = judge.model_copy(update=fewer)
        return result.model_copy(update={"evaluation": evaluation.model_copy(update=update)})

    return shorten


def _short_score(score: Score) -> Score:
    shorter = {name: _cut(getattr(score, name), name != "base") for name in ("base", "tuned", "improvement")}
    return score.model_copy(update=shorter)


def _short(groups: GroupSummary | None) -> GroupSummary | None:
    if groups is None:
        return None
    update: dict[str, object] = {
        name: _cut(interval, True)
        for name in ("worst", "worst_improvement", "gap")
        if (interval := getattr(groups, name)) is not None
    }
    update["groups"] = [
        group.model_copy(update={name: _cut(getattr(group, name), False) for name in ("tuned", "improvement")})
        for group in groups.groups
    ]
    return groups.model_copy(update=update)


def _cut(interval: Bounded, levels: bool) -> Interval:
    known = interval.levels if isinstance(interval, Interval) else None
    bounds = {level: [_six(bound) for bound in both] for level, both in (known or {}).items()}
    figures = {name: _six(getattr(interval, name)) for name in ("value", "lower", "upper")}
    return Interval(**figures, levels=(bounds or None) if levels else None)


def _groups(most: int, of_skills: bool) -> Callable[[StepResult], StepResult]:
    """Fewer groups, and whether there are any of retention: the worst of all groups stays."""

    def shorten(result: StepResult) -> StepResult:
        if (evaluation := result.evaluation) is None:
            return result
        update: dict[str, object] = {}
        if evaluation.groups is not None:
            update["groups"] = evaluation.groups.model_copy(update={"groups": evaluation.groups.groups[:most]})
        if evaluation.retention is not None and not of_skills:
            update["retention"] = evaluation.retention.model_copy(update={"skills": {}})
        return result.model_copy(update={"evaluation": evaluation.model_copy(update=update)})

    return shorten


def _six(value: float) -> float:
    return float(f"{value:.6g}")


# Plan and counts are what the operator needs; the example is for people and is in plan.json as well.
_SHORTENINGS: list[Callable[[StepResult], StepResult]] = [
    _short_figures,
    _example(300),
    _example(100),
    _example(0),
    _classes(40, 8),
    _bad_rows(160, 8),
    _sentences(120, 32),
    _bad_rows(80, 4),
    _sentences(60, 32),
    _groups(3, True),
    _fewer_scores(4),
    _groups(1, False),
    _others(80, 1),
    _changes(120, 8),
    _verdict(512, 256),
    _changes(80, 2),
    _sources(8),
    _downloads(80, 21),
    _sentences(40, 12),
    _bad_rows(40, 2),
    _classes(0, 0),
    _sources(0),
    _downloads(40, 12),
    _sentences(0, 0),
    _downloads(40, 3),
    _fewer_scores(1),
    _verdict(128, 0),
]
