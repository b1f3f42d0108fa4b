"""Which checkpoint is the best, when the loss on the validation rows rises, and when training ends early."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import TrainerControl, TrainerState

from hone.contract.settings import Select
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.planning.volume import fit_to_volume, needed_bytes
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint
from hone_trainer.training.callbacks import Checkpointing, StepHealth
from hone_trainer.training.validation import Validation, validation_of

ARGS = SimpleNamespace(process_index=0, device=torch.device("cpu"))


def history(*losses: float) -> list[dict[str, float]]:
    """A Trainer's history with an evaluation each ten steps, and lines of training between them."""
    lines = [[{"loss": 9.9, "step": 10 * i}, {"eval_loss": loss, "step": 10 * i}] for i, loss in enumerate(losses, 1)]
    return [line for pair in lines for line in pair]


@pytest.mark.parametrize(
    ("losses", "best", "since"),
    [
        pytest.param([], None, 0, id="no evaluation"),
        pytest.param([0.9, 0.5, 0.7, 0.6], (20, 0.5), 2, id="later ones are worse"),
        pytest.param([0.5, 0.5, 0.5], (10, 0.5), 2, id="of equal ones the earliest"),
        pytest.param([0.9, math.nan, 0.8], (30, 0.8), 0, id="what is no number does not count"),
    ],
)
def test_the_best_is_the_earliest_with_the_lowest_loss(
    losses: list[float], best: tuple[int, float] | None, since: int
) -> None:
    validation = Validation.of(history(*losses))
    assert (validation.best, validation.since_best) == (best, since)


@pytest.mark.parametrize(
    ("losses", "warning"),
    [
        pytest.param([0.9, 0.5, 0.8], None, id="once may be noise"),
        pytest.param([0.9, 0.5, 0.502, 0.503], None, id="less than a percent is noise"),
        pytest.param([0.9, 0.5, 0.7, 0.8], "rises since step 20: from 0.5 to 0.8 at step 40", id="twice"),
        pytest.param([0.9, 0.5, 0.7, 0.4], None, id="it has fallen again"),
    ],
)
def test_a_rising_loss_is_a_warning_with_its_step(losses: list[float], warning: str | None) -> None:
    words = Validation.of(history(*losses)).warning
    assert words is None if warning is None else warning in (words or "")
    assert len(words or "") <= 256


def run_of(tmp_path: Path, select: Select | None = Select.BEST, **options: int) -> Checkpointing:
    """The callback of a run of 100 steps that is evaluated each ten, and saves nothing on its own."""
    (tmp_path / "model").mkdir(parents=True)
    config = tiny.make_run(tmp_path, steps=100, every=1000, evaluate=10, select=select, **options)
    planned = load_plan(config)
    assert planned
    callback = Checkpointing(config, planned.plan, StatusDir(tmp_path), StepHealth())
    callback.on_train_begin(ARGS, TrainerState(), TrainerControl())
    return callback


def evaluated(callback: Checkpointing, *losses: float) -> list[int]:
    """The steps that are saved, where the evaluations give these losses; ends where training does."""
    state, saved = TrainerState(), []
    for line in history(*losses):
        state.log_history.append(line)
        if "eval_loss" not in line:
            continue
        state.global_step, control = int(line["step"]), TrainerControl()
        callback._health.add_loss(torch.tensor(1.0))
        callback.on_step_end(ARGS, state, control)
        callback.on_evaluate(ARGS, state, control)
        if control.should_save:
            saved.append(state.global_step)
            checkpoint.checkpoint_dir(callback._directory, state.global_step).mkdir(parents=True)
            callback.on_save(ARGS, state, control)
        if control.should_training_stop:
            break
    return saved


def marks(callback: Checkpointing) -> list[tuple[int, float | None, bool]]:
    """Step, loss and finality of each whole checkpoint."""
    return [(mark.step, mark.eval_loss, mark.final) for _, mark in checkpoint.whole(callback._directory)]


def test_each_new_best_is_saved_and_the_best_stays_whatever_keep_is(tmp_path: Path) -> None:
    callback = run_of(tmp_path, keep=1)
    losses = [0.9, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9]
    assert evaluated(callback, *losses) == [10, 20, 100]
    assert marks(callback) == [(20, 0.5, False), (100, 0.9, True)], "keep is 1: the best one is kept in addition"


def test_only_what_may_be_exported_counts_as_the_best(tmp_path: Path) -> None:
    """Such as where the best evaluation came at a doubtful step, which is not saved: others lack the whole weights."""
    callback = run_of(tmp_path, keep=3)
    state = TrainerState(global_step=20, log_history=history(0.1, 0.6))
    callback.on_train_begin(ARGS, state, TrainerControl())
    checkpoint.checkpoint_dir(callback._directory, 20).mkdir(parents=True)
    callback.on_save(ARGS, state, TrainerControl())
    assert marks(callback) == [(20, None, False)]


def test_by_last_only_the_last_is_kept(tmp_path: Path) -> None:
    callback = run_of(tmp_path, select=Select.LAST, keep=1)
    assert evaluated(callback, *[0.5] * 9, 0.9) == [100]
    assert marks(callback) == [(100, 0.9, True)]


def test_training_ends_once_patience_does_and_its_last_checkpoint_is_final(tmp_path: Path) -> None:
    callback = run_of(tmp_path, keep=1, patience=2)
    assert evaluated(callback, 0.9, 0.5, 0.6, 0.55, 0.4) == [10, 20, 40], "the better one of step 50 never comes"
    assert marks(callback) == [(20, 0.5, False), (40, 0.55, True)]
    assert not callback.stopped, "it has ended, nobody stopped it"


def test_an_evaluation_that_a_stop_cut_is_none(tmp_path: Path) -> None:
    callback = run_of(tmp_path)
    state, control = TrainerState(global_step=10), TrainerControl(should_evaluate=True)
    callback._status.raise_stop()
    callback.on_prediction_step(ARGS, state, control)
    state.log_history = history(0.1)
    callback.on_evaluate(ARGS, state, control)
    assert Validation.of(state.log_history).best is None
    assert control.should_save, "the step itself is good"


def test_what_was_the_best_is_known_after_a_resume(tmp_path: Path) -> None:
    callback = run_of(tmp_path, patience=3)
    state = TrainerState(global_step=30, log_history=history(0.9, 0.5, 0.6))
    callback.on_train_begin(ARGS, state, TrainerControl())
    state.log_history, state.global_step = history(0.9, 0.5, 0.6, 0.55), 40
    control = TrainerControl()
    callback.on_evaluate(ARGS, state, control)
    assert not control.should_save, "0.55 is no new best: 0.5 was before the resume"
    state.log_history, state.global_step = history(0.9, 0.5, 0.6, 0.55, 0.7), 50
    callback.on_evaluate(ARGS, state, control)
    assert control.should_training_stop, "two of the three evaluations were before the resume"


def test_a_checkpoint_tells_its_evaluations(tmp_path: Path) -> None:
    state = TrainerState(global_step=20, log_history=history(0.9, 0.5))
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    assert validation_of(tmp_path).best == (20, 0.5)
    assert validation_of(tmp_path / "none").best is None


def test_a_volume_without_room_for_the_best_keeps_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.make_run(tmp_path, select=Select.BEST)
    planned = load_plan(config)
    assert planned
    plan = planned.plan.model_copy(update={"checkpoint_bytes": 1 << 30})
    assert needed_bytes(plan, 2) == 4 << 30
    usage = SimpleNamespace(total=3 << 30, free=3 << 30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    fitting, short = fit_to_volume(tmp_path, plan, config.checkpoint)
    assert (fitting.checkpoint_select, short) == (Select.LAST, [])
    assert "cannot hold the best" in fitting.reasons["checkpointSelect"]
    requested = config.checkpoint.model_copy(update={"select": Select.BEST})
    with pytest.raises(BadInput, match="2 checkpoints, the best one and the one being written"):
        fit_to_volume(tmp_path, plan, requested)


@pytest.mark.parametrize(("exports", "written"), [(None, False), (False, False), (True, True)])
def test_under_zero_only_what_may_be_exported_has_the_whole_weights(exports: bool | None, written: bool) -> None:
    saved: list[str] = []

    class Base:
        is_deepspeed_enabled = True
        state = SimpleNamespace(global_step=4, max_steps=10)

        def save_model(self, directory: str, _internal_call: bool) -> None:
            saved.append(directory)

    class Trainer(TrainerMixin, Base):
        """As an objective's, with TRL's in place of Base."""

    trainer = Trainer()
    if exports is not None:
        trainer.set_exports(lambda: exports)
    trainer.save_model("checkpoint-4")
    assert saved == (["checkpoint-4"] if written else [])
