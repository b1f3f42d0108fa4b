"""When to save: the decision after each step, with a clock and other ranks that the test owns."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl, TrainerState

from hone_trainer import callbacks
from hone_trainer.callbacks import Checkpointing, StepHealth
from hone_trainer.planfile import load_plan
from hone_trainer.status import StatusDir

ARGS = SimpleNamespace(process_index=0, device=torch.device("cpu"))


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def saves(tmp_path: Path, **plan: object) -> Checkpointing:
    """The callback of a run of 1000 steps."""
    (tmp_path / "model").mkdir()
    config = tiny.make_run(tmp_path, steps=1000)
    planned = load_plan(config)
    assert planned is not None
    made = Checkpointing(config, planned.plan.model_copy(update=plan), StatusDir(tmp_path), StepHealth())
    made.on_train_begin(ARGS, TrainerState(), TrainerControl())
    return made


def saves_at(callback: Checkpointing, step: int) -> bool:
    """Take a step, and save where that is decided."""
    control, state = TrainerControl(), TrainerState(global_step=step)
    callback.on_step_end(ARGS, state, control)
    if control.should_save:
        callbacks.checkpoint.checkpoint_dir(callback._directory, step).mkdir(parents=True)
        callback.on_save(ARGS, state, control)
    return control.should_save


def test_by_minutes_since_the_last_save(tmp_path: Path, clock: Clock) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=None, checkpoint_every_minutes=2)
    saved = []
    for step in range(1, 11):
        clock.now += 50
        if saves_at(callback, step):
            saved.append(step)
    assert saved == [3, 6, 9], "each after the first step that ends two minutes after the last save"


def test_any_rank_that_finds_it_due_makes_all_save(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = saves(tmp_path, checkpoint_every_steps=None, checkpoint_every_minutes=2)
    assert not saves_at(callback, 1)
    asked = []

    def highest(values: list[int], device: torch.device) -> list[int]:
        asked.append(values[0])
        return [max(values[0], callbacks.Decision.SAVE), values[1]]

    monkeypatch.setattr(callbacks, "highest", highest)
    assert saves_at(callback, 2)
    assert asked == [callbacks.Decision.GO_ON], "by its own clock it would not have saved"
