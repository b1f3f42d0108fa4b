"""Whether a step is tried again, and when."""

import pytest

from hone.api.finetunejob_status import Failure
from hone.contract.exits import POLICIES
from hone.contract.exits import FailureClass as C
from hone.core.finetunejob.policies.retry import backoff, counted, give_up
from hone.core.finetunejob.run import TRAIN


def failure(cls: C, final: bool | None = None) -> Failure:
    return Failure(failure_class=str(cls), message="m", hint="h", final=final)


@pytest.mark.parametrize(
    ("case", "last", "failures", "limit", "want"),
    [
        ("bad input is never tried again", C.BAD_INPUT, {"train.BadInput": 1}, 3, "BadInput"),
        ("nor what outlived its deadline", C.DEADLINE_EXCEEDED, {"train.DeadlineExceeded": 1}, 3, "DeadlineExceeded"),
        ("a crash within the limit", C.CRASHED, {"train.Crashed": 3}, 3, None),
        ("a crash above the limit", C.CRASHED, {"train.Crashed": 4}, 3, "RetryLimitExceeded"),
        ("a limit of 0 allows one attempt", C.CRASHED, {"train.Crashed": 1}, 0, "RetryLimitExceeded"),
        ("classes that count add up", C.HUNG, {"train.Crashed": 2, "train.Hung": 2}, 3, "RetryLimitExceeded"),
        ("preemptions do not count", C.CRASHED, {"train.Crashed": 1, "train.Preempted": 90}, 3, None),
        ("any number of preemptions", C.PREEMPTED, {"train.Preempted": 1000}, 0, None),
        ("other steps have their own", C.CRASHED, {"prepare.Crashed": 9, "train.Crashed": 1}, 3, None),
        ("diverged once", C.DIVERGED, {"train.Diverged": 1}, 3, None),
        ("diverged twice", C.DIVERGED, {"train.Diverged": 2}, 3, "Diverged"),
        ("four times never started", C.NEVER_STARTED, {"train.NeverStarted": 4}, 0, None),
        ("five times never started", C.NEVER_STARTED, {"train.NeverStarted": 5}, 9, "NeverStarted"),
    ],
)
def test_give_up(case: str, last: C, failures: dict[str, int], limit: int, want: str | None) -> None:
    reason = give_up(TRAIN, failure(last), failures, limit)
    assert (reason.reason if reason else None) == want, case
    assert reason is None or "m (h)" in reason.message


@pytest.mark.parametrize("cls", [C.OUT_OF_MEMORY, C.CRASHED, C.HUNG])
def test_what_is_final_is_not_tried_again_whatever_its_class(cls: C) -> None:
    reason = give_up(TRAIN, failure(cls, final=True), {f"train.{cls}": 1}, 3)
    assert reason is not None
    assert (reason.reason, reason.message) == (str(cls), "m (h)")
    assert give_up(TRAIN, failure(cls, final=False), {f"train.{cls}": 1}, 3) is None


def test_every_class_has_a_policy() -> None:
    assert set(POLICIES) == set(C)


@pytest.mark.parametrize(
    ("cls", "times", "want"),
    [
        (C.NEVER_STARTED, 1, 30),
        (C.NEVER_STARTED, 2, 60),
        (C.NEVER_STARTED, 4, 240),
        (C.NEVER_STARTED, 9, 600),
        (C.PREEMPTED, 5, 0),
        (C.CRASHED, 3, 0),
    ],
)
def test_backoff(cls: C, times: int, want: float) -> None:
    assert backoff(TRAIN, failure(cls), {f"train.{cls}": times}) == want


def test_counted_adds_up_all_steps_and_ignores_what_it_does_not_know() -> None:
    assert counted({"prepare.Crashed": 1, "train.Hung": 2, "train.Preempted": 4, "train.Later": 8}) == 3
