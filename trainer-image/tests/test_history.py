"""The history of a run's figures: bounded however long a run is, and continued where an attempt resumes."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from transformers import TrainerControl, TrainerState

from hone.contract.history import MAX_EVALUATIONS, MAX_POINTS, History, HistoryPoint
from hone.contract.runconfig import RunConfig
from hone_trainer import train
from hone_trainer.protocol.history import HISTORY_FILE, load_history
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.training import checkpoint
from hone_trainer.training.history import Recording, added, before

ARGS = SimpleNamespace(process_index=0)


class Reports:
    """The figures of a rank, as its `Reporting` has them."""

    def __init__(self) -> None:
        self.now = RankStatus()
        self.training_seconds = 0.0

    def step(self, step: int, **figures: object) -> TrainerState:
        """Report a step of two seconds and ten tokens."""
        self.training_seconds += 2
        tokens = self.now.tokens + 10
        self.now = RankStatus.model_validate({"step": step, "tokens": tokens, "loss": 1.0, **figures})
        return TrainerState(global_step=step)


def attempt(config: RunConfig, first: int, last: int, resumed_from: int | None = None) -> Recording:
    """An attempt that logs these steps, with the step as its loss, and ends."""
    reports = Reports()
    recording = Recording(config, reports, resumed_from)  # type: ignore[arg-type]
    for step in range(first, last + 1):
        state = reports.step(step, loss=float(step), grad_norm=1.0 / step, learning_rate=1e-3)
        recording.on_log(ARGS, state, TrainerControl(), {"loss": float(step)})
    recording.on_train_end(ARGS, TrainerState(), TrainerControl())
    return recording


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "model").mkdir()
    return tiny.make_run(tmp_path, steps=1000)


@pytest.mark.parametrize("lines", [1, MAX_POINTS, MAX_POINTS + 1, 3 * MAX_POINTS, 5000])
def test_any_number_of_lines_fits_and_none_is_left_out(lines: int) -> None:
    points: list[HistoryPoint] = []
    for step in range(1, lines + 1):
        points = added(
            points, HistoryPoint(step=step, loss=float(step), grad_norm=float(step % 100), memory_bytes=step)
        )
        assert len(points) <= MAX_POINTS
    assert sum(point.lines for point in points) == lines
    mean = sum((point.loss or 0.0) * point.lines for point in points) / lines
    assert mean == pytest.approx((lines + 1) / 2, rel=1e-3), "merged points are means of all their lines"
    assert points[-1].step == lines
    assert points[-1].memory_bytes == lines
    assert max(point.grad_norm or 0.0 for point in points) == min(lines, 99), "a peak of the norm stays visible"
    assert len({point.lines for point in points[:-1]}) <= 1, "all points but the last cover as many lines"


def test_a_resume_forgets_the_steps_that_are_done_again(config: RunConfig) -> None:
    attempt(config, 1, 90)
    recording = attempt(config, 61, 100, resumed_from=60)
    history = load_history(config)
    assert history == recording.history
    assert [point.step for point in history.points] == list(range(1, 101)), "each step once"
    assert [point.loss for point in history.points] == [float(step) for step in range(1, 101)]
    assert history.resumed_at == [60]
    assert history.tokens == 1000
    assert history.seconds == pytest.approx(200.0)


def test_a_start_from_the_base_begins_a_new_history(config: RunConfig) -> None:
    attempt(config, 1, 90)
    attempt(config, 1, 5)
    history = load_history(config)
    assert [point.step for point in history.points] == [1, 2, 3, 4, 5]
    assert (history.tokens, history.resumed_at) == (50, [])


def test_validation_losses_are_bounded_and_the_newest_stays(config: RunConfig) -> None:
    recording = Recording(config, Reports(), None)  # type: ignore[arg-type]
    for step in range(1, 3 * MAX_EVALUATIONS):
        recording.on_evaluate(ARGS, TrainerState(global_step=step), TrainerControl(), {"eval_loss": float(step)})
    evaluations = recording.history.evaluations
    assert len(evaluations) <= MAX_EVALUATIONS
    assert evaluations[-1].step == 3 * MAX_EVALUATIONS - 1


def test_figures_that_are_no_numbers_are_left_out(config: RunConfig) -> None:
    reports = Reports()
    recording = Recording(config, reports, None)  # type: ignore[arg-type]
    state = reports.step(1, loss=math.nan, grad_norm=math.inf)
    recording.on_log(ARGS, state, TrainerControl(), {"loss": math.nan})
    recording.on_evaluate(ARGS, state, TrainerControl(), {"eval_loss": math.nan})
    recording.on_save(ARGS, state, TrainerControl())
    point = load_history(config).points[0]
    assert (point.loss, point.grad_norm) == (None, None)
    assert load_history(config).evaluations == []
    json.loads((Path(config.paths.run) / HISTORY_FILE).read_text(), parse_constant=pytest.fail)


def test_other_ranks_record_nothing(config: RunConfig) -> None:
    reports = Reports()
    recording = Recording(config, reports, None)  # type: ignore[arg-type]
    args = SimpleNamespace(process_index=1)
    recording.on_log(args, reports.step(1), TrainerControl(), {"loss": 1.0})
    recording.on_save(args, TrainerState(), TrainerControl())
    assert not (Path(config.paths.run) / HISTORY_FILE).exists()


def test_a_full_disk_ends_no_run(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hone_trainer.training.history.write_atomic", full)
    attempt(config, 1, 3)


@pytest.mark.parametrize("content", ["", "{", '{"points": [{"step": -1}]}'])
def test_a_damaged_file_is_no_history(content: str, config: RunConfig) -> None:
    (Path(config.paths.run) / HISTORY_FILE).write_text(content)
    assert load_history(config) == History()


def test_what_came_after_a_step_takes_its_tokens_and_seconds() -> None:
    history = History(points=[HistoryPoint(step=step, tokens=7 * step, seconds=2.0 * step) for step in (10, 20)])
    assert (before(history, 10).tokens, before(history, 10).seconds) == (70, 20.0)
    assert before(history, 20) == history
    assert (before(history, 5).tokens, before(history, 5).seconds) == (0, 0.0)


def figures(point: HistoryPoint) -> tuple[object, ...]:
    """What a step that is done again has exactly as before."""
    return point.step, point.loss, point.grad_norm, point.learning_rate, point.tokens


@pytest.mark.train
def test_a_real_run_that_resumes_has_one_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.make_run(tmp_path, steps=8, every=4, keep=3)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    with tiny.only_rank():
        train._train(0, StatusDir(tmp_path))
        whole = load_history(config)
        # Its last checkpoint is lost: the next attempt does these steps again.
        (checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), 8) / "COMPLETE.json").unlink()
        train._train(0, StatusDir(tmp_path))
    resumed = load_history(config)
    assert [point.step for point in whole.points] == list(range(1, 9))
    assert [(p.step, p.loss, p.grad_norm) for p in resumed.points] == [
        (p.step, p.loss, p.grad_norm) for p in whole.points
    ]
    assert (whole.resumed_at, resumed.resumed_at) == ([], [4])
    assert resumed.tokens == whole.tokens > 0
    assert all(point.learning_rate is not None and point.memory_bytes for point in resumed.points)
