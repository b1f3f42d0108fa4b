"""What an attempt adjusted by itself: ranks restarted within their pod, and what it does differently from the plan."""

from collections.abc import Iterable

from hone.api.finetunejob_status import MAX_CHANGE, MAX_CHANGES, AttemptStatus
from hone.contract.results import StepResult
from hone.core import reported


def adjusted(attempt: AttemptStatus, restarts: int, changes: Iterable[str]) -> AttemptStatus:
    """The attempt with what its pods report. Neither value shrinks: what was recorded once stays.

    The pods are not trusted: the sentences are limited in number and length.
    """
    shown = (reported.text(" ".join(sentence.split()), MAX_CHANGE) for sentence in changes)
    sentences = list(dict.fromkeys([*(attempt.changes or []), *(sentence for sentence in shown if sentence)]))
    most = max(attempt.restarts or 0, restarts)
    return attempt.model_copy(update={"restarts": most or None, "changes": sentences[:MAX_CHANGES] or None})


def adjusted_by(attempt: AttemptStatus, results: Iterable[StepResult]) -> AttemptStatus:
    """The attempt with what the results of its pods report."""
    for result in results:
        attempt = adjusted(attempt, result.restarts, result.changes)
    return attempt
