"""When a run has diverged, and how a schedule continues at another rate."""

import math

import pytest
import torch

from hone_trainer.training.divergence import Divergence
from hone_trainer.training.learning_rate import set_peak_rate


@pytest.mark.parametrize(
    ("losses", "at"),
    [
        pytest.param([1.0] * 100, None, id="steady"),
        pytest.param([math.nan, math.inf, math.nan], 3, id="three that are no numbers"),
        pytest.param([math.nan, math.nan, 1.0] * 10, None, id="two, again and again"),
        pytest.param([1.0] * 20 + [3.1] * 20, 40, id="high for 20 steps"),
        pytest.param([1.0] * 20 + [3.1] * 19 + [1.0] * 5, None, id="high for 19"),
        pytest.param([1.0] * 20 + [3.0] * 100, None, id="three times the median, not above"),
        pytest.param([1.0] * 19 + [9.0] * 20, None, id="too few losses to know their median"),
        pytest.param([1.0] * 20 + ([9.0] * 19 + [1.0]) * 3, None, id="high, with a good one in between"),
        pytest.param([4.0] * 10 + [1.0] * 40 + [3.5] * 19, None, id="about as high as in the beginning, not for long"),
        pytest.param([1.0] * 30 + [9.0] * 10 + [math.nan] + [9.0] * 10, 51, id="a number that is none ends no streak"),
        pytest.param([0.0] * 30 + [0.1] * 40, None, id="a median of zero says nothing"),
        pytest.param([5.0 / n for n in range(1, 200)], None, id="falling"),
        pytest.param([0.1 + 0.02 * n for n in range(200)], None, id="rising slowly, as a rate that is too high may"),
    ],
)
def test_the_rule(losses: list[float], at: int | None) -> None:
    rule = Divergence()
    diverged_at = None
    for step, loss in enumerate(losses, start=1):
        rule.take(loss, finite=math.isfinite(loss))
        if rule.verdict and diverged_at is None:
            diverged_at = step
    assert diverged_at == at


def test_a_streak_is_seen_from_its_first_step_to_its_last() -> None:
    rule = Divergence()
    seen = []
    for loss in [1.0] * 20 + [9.0, 9.0, math.nan, 9.0, 1.0]:
        rule.take(loss, finite=math.isfinite(loss))
        seen.append((rule.high, rule.nonfinite))
    assert seen[19:] == [(False, False), (True, False), (True, False), (True, True), (True, False), (False, False)]


def schedule(peak: float) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with two groups, as the Trainer makes them, under a rate that falls over ten steps."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [w]} for w in weights], lr=peak)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)


def rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR, steps: int) -> list[float]:
    """The rates of the first group in so many steps."""
    history = []
    for _ in range(steps):
        history.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return history


@pytest.mark.parametrize("peak", [1.0, 0.5])
def test_a_restored_schedule_takes_another_peak(peak: float) -> None:
    optimizer, scheduler = schedule(1.0)
    rates(optimizer, scheduler, 4)
    saved = optimizer.state_dict(), scheduler.state_dict()

    optimizer, scheduler = schedule(peak)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.6), "restored, whatever was asked for"
    set_peak_rate(optimizer, scheduler, peak)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [peak, peak]
    assert rates(optimizer, scheduler, 3) == pytest.approx([0.6 * peak, 0.5 * peak, 0.4 * peak])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.3 * peak)
