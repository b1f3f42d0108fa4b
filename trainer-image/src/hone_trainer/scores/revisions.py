"""Whether a candidate may replace the revision that is served, by what both answered to the same prompts."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from hone.contract.analysis import Analysis, AnalysisSummary, AnalysisVerdict, Difference, Latency
from hone.contract.metrics import Metric
from hone_trainer.data.reasoning import visible
from hone_trainer.scores.choose import choose
from hone_trainer.scores.figures import RowFigures, score
from hone_trainer.scores.intervals import bootstrap, paired_difference
from hone_trainer.scores.questions import Question, Reply
from hone_trainer.scores.texts import measure, parsed, words

ACCURACY = "accuracy"
"""The metric of classes: the share of rows whose class is right."""
UNBOUNDED = 1 << 30

Replies = Sequence[tuple[Reply, Reply]]


def judge(analysis: Analysis, questions: Sequence[Question], replies: Replies) -> AnalysisSummary:
    """Compare the replies, stable's and candidate's, to the questions, which are at least one."""
    errors = [candidate.error for _, candidate in replies if candidate.text is None]
    lost = sum(stable.text is None for stable, _ in replies)
    if 2 * lost > len(replies):
        message = f"the revision that is served answered {lost} of {len(replies)} prompts with an error"
        return AnalysisSummary(verdict=AnalysisVerdict.INCONCLUSIVE, message=message, errors=len(errors))
    both = [index for index, pair in enumerate(replies) if all(reply.text is not None for reply in pair)]
    if not both:
        message = f"the candidate answered none of {len(replies)} prompts: {errors[0] if errors else 'no answer'}"
        return AnalysisSummary(verdict=AnalysisVerdict.FAIL, message=message[:512], errors=len(errors))
    prompts, pairs = [questions[index] for index in both], [replies[index] for index in both]
    metric, figures = _figures(analysis, prompts, pairs)
    latencies = [np.array([pair[which].seconds for pair in pairs]) for which in (0, 1)]
    failure = _smoke(analysis, questions, replies) or _slower(analysis, *latencies)
    main = score(figures)
    if main is None:
        verdict, message, difference = AnalysisVerdict.INCONCLUSIVE, f"{metric} applies to no prompt", None
        values: tuple[float | None, float | None] = (None, None)
    else:
        lower, upper = main.improvement.at(analysis.confidence) or (-1.0, 1.0)
        difference = Difference(value=main.improvement.value, lower=lower, upper=upper)
        values = (main.base.value, main.tuned.value)
        verdict, message = _verdict(metric, main.base.value, main.tuned.value, difference, analysis.tolerance)
    if failure and verdict != AnalysisVerdict.FAIL:
        verdict, message = AnalysisVerdict.FAIL, failure
    return AnalysisSummary(
        verdict=verdict,
        message=message[:512],
        metric=metric,
        samples=len(both),
        stable=values[0],
        candidate=values[1],
        difference=difference,
        errors=len(errors),
        stable_latency=_latency(latencies[0]),
        candidate_latency=_latency(latencies[1]),
    )


def _figures(analysis: Analysis, questions: Sequence[Question], replies: Replies) -> tuple[str, RowFigures]:
    """The metric's name, and its figures."""
    references = [question.reference for question in questions]
    texts = [[pair[which].text or "" for pair in replies] for which in (0, 1)]
    if analysis.api == "Classify":
        metric, name = Metric.EXACT_MATCH, ACCURACY
    else:
        metric = analysis.metric or _suitable(references)
        name = str(metric)
    stable, candidate = (np.array(measure(metric, each, references)) for each in texts)
    return name, RowFigures(name, stable, candidate, bounds=(0.0, 1.0))


def _suitable(references: list[str]) -> Metric:
    """The metric that scores of jobs lead with for such right answers; words stand for tokens."""
    lengths = [len(words(text)) for text in references]
    metrics = choose(references, lengths, UNBOUNDED, None).metrics
    return next(each for each in metrics if each is not Metric.LOSS)


def _verdict(
    metric: str, stable: float, candidate: float, difference: Difference, tolerance: float
) -> tuple[AnalysisVerdict, str]:
    bounds = f"[{difference.lower:+.2f}, {difference.upper:+.2f}]"
    if difference.lower > -tolerance:
        return AnalysisVerdict.PASS, f"{metric} {candidate:.2f}, of the old revision {stable:.2f}: {bounds}"
    if difference.upper < -tolerance:
        words_ = f"{metric} {candidate:.2f} < {stable:.2f}: difference {difference.value:+.2f} {bounds}"
        return AnalysisVerdict.FAIL, f"{words_} is below -{tolerance:g}"
    words_ = f"{metric} {candidate:.2f}, of the old revision {stable:.2f}: {bounds} has -{tolerance:g} in it"
    return AnalysisVerdict.INCONCLUSIVE, f"{words_}, so the prompts are too few to tell"


def _smoke(analysis: Analysis, questions: Sequence[Question], replies: Replies) -> str | None:
    """In what the candidate's answers are certainly worse whatever they say; None: in nothing."""
    rows = list(zip(questions, replies, strict=True))
    as_json = [pair for question, pair in rows if parsed(visible(question.reference)) is not None]
    checks: dict[str, tuple[Replies, Callable[[Reply], bool]]] = {
        "come without an error": (replies, lambda reply: reply.text is not None),
        "are not empty": (replies, lambda reply: bool((reply.text or "").strip())),
        f"end within {analysis.max_tokens} tokens": (replies, lambda reply: reply.ended),
        "are JSON where they are to be": (as_json, lambda reply: parsed(visible(reply.text or "")) is not None),
    }
    for what, (pairs, holds) in checks.items():
        if not pairs:
            continue
        stable, candidate = (np.array([holds(pair[which]) for pair in pairs]) for which in (0, 1))
        bounds = paired_difference(stable, candidate).at(analysis.confidence)
        if bounds and bounds[1] < -analysis.tolerance:
            counts = f"{int(candidate.sum())} of {len(pairs)}, of the old revision's {int(stable.sum())}"
            return f"fewer of the candidate's answers {what}: {counts}"
    return None


def _slower(analysis: Analysis, stable: np.ndarray, candidate: np.ndarray) -> str | None:
    """Whether the candidate is certainly slower than it may be."""
    if analysis.latency_tolerance is None:
        return None

    def ratio(rows: np.ndarray) -> np.ndarray:
        slow, usual = (np.percentile(each[rows], 95, axis=1) for each in (candidate, stable))
        quotient: np.ndarray = slow / np.maximum(usual, 1e-9)
        return quotient

    most = 1 + analysis.latency_tolerance
    bounds = bootstrap(ratio, len(stable)).at(analysis.confidence)
    if not bounds or bounds[0] <= most:
        return None
    before, now = _latency(stable), _latency(candidate)
    return f"p95 of the latency {now.p95:.2f} s > {most:g} times {before.p95:.2f} s"


def _latency(seconds: np.ndarray) -> Latency:
    return Latency(p50=statistics.median(seconds.tolist()), p95=float(np.percentile(seconds, 95)))
