"""What Hone adds to a step costs less than a hundredth of a short one.

CPU time is counted, not time by the clock, so that a busy machine changes nothing.
"""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl, TrainerState

from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.training.callbacks import Checkpointing, Reporting, StepHealth

STEP_SECONDS = 0.2
ARGS = SimpleNamespace(process_index=0, device=torch.device("cpu"))
LOGS = {"loss": 1.5, "learning_rate": 1e-4, "grad_norm": 0.7, "num_tokens": 12_345.0}


class Steps:
    """The callbacks of a long run, on a clock that the test moves."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "model").mkdir()
        config = tiny.make_run(directory, steps=1_000_000, every=1_000_000)
        planned = load_plan(config)
        assert planned is not None
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.health = StepHealth()
        self.saves = Checkpointing(config, planned.plan, StatusDir(directory), self.health)
        self.reports = Reporting(
            StatusDir(directory), RankStatus(total_steps=1_000_000), self.saves, Beats(StatusDir(directory), 0)
        )
        self.state, self.control = TrainerState(), TrainerControl()
        for callback in (self.saves, self.reports):
            callback.on_train_begin(ARGS, self.state, self.control)

    def step(self) -> None:
        """One step as the trainer and its mixin tell of it, with a log line."""
        self.now += STEP_SECONDS
        self.state.global_step += 1
        self.health.add_loss(torch.tensor(1.5))
        self.health.add_norm(torch.tensor(0.7))
        for callback in (self.saves, self.reports):
            callback.on_step_end(ARGS, self.state, self.control)
        self.reports.on_log(ARGS, self.state, self.control, logs=LOGS)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(tmp_path, monkeypatch)


def test_the_work_after_a_step_is_less_than_a_hundredth_of_it(steps: Steps) -> None:
    count = 500
    began = time.thread_time()
    for _ in range(count):
        steps.step()
    share = (time.thread_time() - began) / (count * STEP_SECONDS)
    assert share < 0.01, f"{share:.2%} of a step of {STEP_SECONDS} s"


def test_the_status_is_written_by_the_clock_and_not_by_the_step(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(StatusDir, "write_status", lambda _, status: written.append(status.step))
    for _ in range(100):
        steps.step()
    # 20 seconds; steps and log lines each have their own second.
    assert 20 <= len(written) <= 42
    assert written[-1] >= 95


@pytest.mark.slow
def test_a_long_run_costs_no_more_for_each_step_than_a_short_one(steps: Steps) -> None:
    def cost(count: int) -> float:
        began = time.thread_time()
        for _ in range(count):
            steps.step()
        return (time.thread_time() - began) / count

    cost(200)
    first = cost(300)
    for index in range(200_000):
        steps.saves._divergence._losses.append(2.0 + index)
    assert cost(300) < 5 * first
