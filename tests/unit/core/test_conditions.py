"""Conditions keep their transition time, and kstatus' three never contradict each other."""

from datetime import UTC, datetime

import pytest

from hone.core.conditions import FALSE, TRUE, Finding, kstatus, merge

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("case", "finding", "since"),
    [
        ("nothing changed", Finding("Ready", FALSE, "Training"), EARLY),
        ("only reason and message changed", Finding("Ready", FALSE, "Finishing", "m"), EARLY),
        ("the status changed", Finding("Ready", TRUE, "Succeeded"), LATE),
    ],
)
def test_transition_time(case: str, finding: Finding, since: datetime) -> None:
    old = merge([], [Finding("Ready", FALSE, "Training")], 1, EARLY)
    (new,) = merge(old, [finding], 2, LATE)
    assert new.last_transition_time == since.strftime("%Y-%m-%dT%H:%M:%SZ"), case
    assert (new.reason, new.observed_generation) == (finding.reason, 2)


@pytest.mark.parametrize("state", ["Ready", "Reconciling", "Stalled", "Paused"])
def test_at_most_one_of_the_three_is_true(state: str) -> None:
    conditions = {finding.type: finding for finding in kstatus(state, "Why", "words")}
    assert set(conditions) == {"Ready", "Reconciling", "Stalled"}
    assert [kind for kind in conditions if conditions[kind].status == TRUE] == ([] if state == "Paused" else [state])
    assert (conditions["Ready"].reason, conditions["Ready"].message) == ("Why", "words")


def test_a_long_message_is_cut() -> None:
    (condition,) = merge([], [Finding("Ready", FALSE, "Why", "x" * 100_000)], 1, EARLY)
    assert len(condition.message) == 2048
