"""When to save: the decision after each step, with a clock and other ranks that the test owns."""

import hashlib
import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl, TrainerState

from hone.contract.objectives import Objective
from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.protocol.verdicts import Diverged
from hone_trainer.training import callbacks, checkpoint
from hone_trainer.training.callbacks import Checkpointing, Reporting, StepHealth

ARGS = SimpleNamespace(process_index=0, device=torch.device("cpu"))


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def saves(tmp_path: Path, objective: Objective = Objective.SFT, **plan: object) -> Checkpointing:
    """The callback of a run of 1000 steps."""
    (tmp_path / "model").mkdir(parents=True)
    config = tiny.make_run(tmp_path, objective=objective, steps=1000)
    planned = load_plan(config)
    assert planned is not None
    callback = Checkpointing(config, planned.plan.model_copy(update=plan), StatusDir(tmp_path), StepHealth())
    callback.on_train_begin(ARGS, TrainerState(), TrainerControl())
    return callback


def saves_at(callback: Checkpointing, step: int) -> bool:
    """Whether a step like any other is saved."""
    return step_with(callback, step, 1.0).should_save


def step_with(callback: Checkpointing, step: int, loss: float) -> TrainerControl:
    """Take a step of that loss, and save where that is decided."""
    callback._health.add_loss(torch.tensor(loss))
    control, state = TrainerControl(), TrainerState(global_step=step)
    callback.on_step_end(ARGS, state, control)
    if control.should_save:
        callbacks.checkpoint.checkpoint_dir(callback._directory, step).mkdir(parents=True)
        callback.on_save(ARGS, state, control)
    return control


def test_by_minutes_since_the_last_save(tmp_path: Path, clock: Clock) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=None, checkpoint_every_minutes=2)
    saved = []
    for step in range(1, 11):
        clock.now += 50
        if saves_at(callback, step):
            saved.append(step)
    assert saved == [3, 6, 9], "each after the first step that ends two minutes after the last save"


def test_by_steps_but_not_more_often_than_pays(tmp_path: Path, clock: Clock) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=2, checkpoint_min_seconds=250.0)
    saved = []
    for step in range(1, 17):
        clock.now += 50
        if saves_at(callback, step):
            saved.append(step)
    assert saved == [6, 12], "each second step may be saved, and the first one after 250 s is"


def test_any_rank_that_finds_it_due_makes_all_save(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=None, checkpoint_every_minutes=2)
    assert not saves_at(callback, 1)
    votes = []

    def total(values: list[float], device: torch.device) -> list[float]:
        votes.append(values[0])
        return [values[0] + 1, *values[1:]]

    monkeypatch.setattr(callbacks, "total", total)
    assert saves_at(callback, 2)
    assert votes == [0], "by its own clock it would not have saved"


def test_nothing_is_saved_during_a_streak_but_once_it_is_over(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=10)
    losses = [1.0] * 28 + [9.0] * 4 + [math.nan] + [1.0] * 8
    saved = [step for step, loss in enumerate(losses, start=1) if step_with(callback, step, loss).should_save]
    assert saved == [10, 20, 34, 40], "30 falls into a streak, which ends with step 33"


def test_a_high_loss_ends_the_run_with_its_newest_checkpoint_from_before(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1)
    with pytest.raises(
        Diverged, match=r"3 times its median of 1 for 20 steps in a row, most recently 4, up to step 45; the n"
    ):
        for step in range(1, 100):
            step_with(callback, step, 1.0 if step <= 25 else 4.0)
    assert callback.saved_step == 25


def test_a_stop_waits_a_while_for_a_streak_to_end(tmp_path: Path, clock: Clock) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000)
    for step in range(1, 26):
        step_with(callback, step, 1.0)
    callback._status.raise_stop()
    assert not step_with(callback, 26, 9.0).should_training_stop
    control = step_with(callback, 27, 1.0)
    assert (control.should_save, control.should_training_stop) == (True, True)


def test_a_stop_does_not_wait_for_the_whole_grace_period(tmp_path: Path, clock: Clock) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000)
    for step in range(1, 26):
        step_with(callback, step, 1.0)
    callback._status.raise_stop()
    assert not step_with(callback, 26, 9.0).should_training_stop
    clock.now += callback._patience
    control = step_with(callback, 27, 9.0)
    assert (control.should_save, control.should_training_stop) == (False, True)
    assert callback.stopped


def test_evaluations_come_at_their_steps_and_at_the_end_but_not_before_a_stop(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000, evaluation_every_steps=4, total_steps=10)
    losses = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.nan, 1.0, 1.0]
    evaluated = [s for s, loss in enumerate(losses, start=1) if step_with(callback, s, loss).should_evaluate]
    assert evaluated == [4, 10], "not at 8, whose loss is no number"
    callback = saves(tmp_path / "stopped", evaluation_every_steps=1)
    assert step_with(callback, 1, 1.0).should_evaluate
    callback._status.raise_stop()
    assert not step_with(callback, 2, 1.0).should_evaluate


def test_a_stop_ends_the_evaluation_and_the_step_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000, evaluation_every_steps=4, total_steps=10)
    control = step_with(callback, 4, 1.0)
    state = TrainerState(global_step=4)
    callback.on_prediction_step(ARGS, state, control)
    assert control.should_evaluate, "nobody has asked"
    monkeypatch.setattr(callbacks, "highest", lambda values, device: [1])  # another rank is asked
    callback.on_prediction_step(ARGS, state, control)
    assert (control.should_evaluate, callback.cut_evaluation) == (False, True)
    callback.on_evaluate(ARGS, state, control)
    assert (control.should_save, control.should_training_stop, callback.stopped) == (True, True, True)


def test_a_stop_during_the_last_evaluation_lets_the_run_end(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000, evaluation_every_steps=4, total_steps=10)
    control = TrainerControl(should_evaluate=True)
    callback._status.raise_stop()
    callback.on_prediction_step(ARGS, TrainerState(global_step=10), control)
    callback.on_evaluate(ARGS, TrainerState(global_step=10), control)
    assert (callback.cut_evaluation, control.should_training_stop, callback.stopped) == (True, False, False)


def test_a_doubtful_step_is_not_saved_for_a_stop_during_its_evaluation(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000, evaluation_every_steps=26)
    for step in range(1, 26):
        step_with(callback, step, 1.0)
    control = step_with(callback, 26, 9.0)
    assert control.should_evaluate
    callback._status.raise_stop()
    callback.on_prediction_step(ARGS, TrainerState(global_step=26), control)
    callback.on_evaluate(ARGS, TrainerState(global_step=26), control)
    assert (control.should_save, control.should_training_stop) == (False, False)
    assert step_with(callback, 27, 1.0).should_training_stop


def test_a_loss_that_measures_nothing_ends_no_run_but_one_that_is_no_number_does(tmp_path: Path) -> None:
    callback = saves(tmp_path, Objective.GRPO, checkpoint_every_steps=1000)
    for step in range(1, 101):
        step_with(callback, step, 0.01 if step <= 50 else 9.0)
    with pytest.raises(Diverged, match="not a finite number"):
        for step in range(101, 104):
            step_with(callback, step, math.nan)


def test_tokens_are_counted_from_where_the_attempt_began(tmp_path: Path, clock: Clock) -> None:
    status = StatusDir(tmp_path)
    reports = Reporting(status, RankStatus(rank=0), saves(tmp_path / "run"), Beats(status, 0))
    reports.on_train_begin(ARGS, TrainerState(num_input_tokens_seen=5000), TrainerControl())
    clock.now += 10
    logs = {"loss": 0.0, "reward": 0.5, "num_tokens": 5400}
    reports.on_log(ARGS, TrainerState(global_step=3), TrainerControl(), logs)
    reported = status.statuses()[0]
    assert (reported.tokens, reported.tokens_per_second, reported.reward) == (400, 40.0, 0.5)


def test_a_checkpoint_too_large_to_be_read_again_has_no_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    sizes, (digest,) = {"model.safetensors": 7}, [hashlib.sha256(b"weights").hexdigest()]
    assert callbacks._written(path, ARGS) == checkpoint.Written(sizes, {"model.safetensors": digest})
    monkeypatch.setattr(checkpoint, "MAX_HASHED_BYTES", 6)
    monkeypatch.setattr(checkpoint, "digests_of_part", lambda *_: pytest.fail("it was read"))
    assert callbacks._written(path, ARGS) == checkpoint.Written(sizes, None)


def test_a_run_ends_though_its_last_losses_were_high(tmp_path: Path) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=1000, total_steps=30)
    assert [s for s in range(1, 31) if step_with(callback, s, 1.0 if s <= 25 else 9.0).should_save] == [30]
