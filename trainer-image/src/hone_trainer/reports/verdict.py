"""The verdict on a run in one sentence: what its main score and the interval of its improvement show."""

from dataclasses import dataclass

from hone.contract.report import Report
from hone.contract.results import Score
from hone_trainer.reports.text import number, signed

BETTER, WORSE, UNCLEAR, UNKNOWN = "better", "worse", "unclear", "unknown"


@dataclass(frozen=True)
class Verdict:
    """What is known of a tuned model.

    Attributes:
        kind: better, worse, unclear (measured, but no difference is shown) or unknown (not measured).
        sentence: the same in one sentence, with the numbers.
    """

    kind: str
    sentence: str


def verdict(report: Report) -> Verdict:
    """What the scores of a report show."""
    if report.evaluation is None:
        return Verdict(UNKNOWN, "The tuned model was not scored, so nothing says whether it is better than its base.")
    if not report.evaluation.scores:
        return Verdict(UNKNOWN, "Without test rows, nothing says whether the tuned model is better than its base.")
    score = report.evaluation.scores[0]
    kind = of_score(score)
    begin = {
        BETTER: "The tuned model is better than its base",
        WORSE: "The tuned model is worse than its base",
        UNCLEAR: "No difference between the tuned model and its base is shown",
    }[kind]
    change = score.improvement
    return Verdict(
        kind,
        f"{begin}: {score.metric} went from {number(score.base.value)} to {number(score.tuned.value)} on "
        f"{number(score.samples)} test rows, an improvement of {signed(change.value)} (95 % interval "
        f"{signed(change.lower)} to {signed(change.upper)}).",
    )


def of_score(score: Score) -> str:
    """What a score shows: the interval of its improvement is above 0, below it, or has it inside."""
    if score.improvement.lower > 0:
        return BETTER
    return WORSE if score.improvement.upper < 0 else UNCLEAR
