"""What a report finds once a run has ended: overfitting, and a task that is far from what the base knows."""

from collections.abc import Iterator

from hone.contract.report import Report
from hone_trainer.reports.text import number

FAR_LOSS = 3.5
"""Loss of the base in nats per token, above which it is as unsure as between 33 tokens that are equally likely."""
RISEN = 1.05
"""Times the least validation loss, above which the last one counts as risen."""
_LOSS = "loss"


def findings(report: Report) -> Iterator[str]:
    """Sentences for people."""
    yield from _far(report)
    yield from _overfit(report)


def _far(report: Report) -> Iterator[str]:
    scores = report.evaluation.scores if report.evaluation else []
    loss = next((score.base.value for score in scores if score.metric == _LOSS), 0.0)
    if loss > FAR_LOSS:
        yield (
            f"The task is far from what the base model knows: its loss on the answers of the test rows is "
            f"{number(round(loss, 2))} per token. What may still work: many more rows, method Full, or a base that was "
            "trained on such texts or in this language."
        )


def _overfit(report: Report) -> Iterator[str]:
    evaluations = report.history.evaluations if report.history else []
    if not evaluations:
        return
    best, last = min(evaluations, key=lambda each: each.loss), evaluations[-1]
    if last.loss > RISEN * best.loss:
        exported = f"; step {report.final_step} was exported" if report.final_step else ""
        yield (
            f"The validation loss rose from {number(best.loss)} at step {best.step} to {number(last.loss)} at step "
            f"{last.step}: from there on, training learned its rows by heart{exported}. Fewer epochs, a lower rate or "
            "more rows help."
        )
