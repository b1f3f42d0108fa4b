"""Objectives that learn from preferences and ratings: a rank here trains a tiny model, finish scores it; the scores."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from in_process import final_weights, finished, train_here

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone_trainer.objectives.reference import ReferenceCache
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.scores import preferences
from hone_trainer.training import callbacks

PREFERENCES = {DataFormat.PREFERENCE, DataFormat.UNPAIRED_PREFERENCE}
METRICS = {
    objective: facts.metric
    for objective, facts in OBJECTIVES.items()
    if PREFERENCES.issuperset(facts.data.formats) and not facts.has_head
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Objective, Path]]:
    """A model and data for each objective, and this process as the rank of every run here."""
    roots = {objective: tmp_path_factory.mktemp(objective.value) for objective in METRICS}
    for objective, root in roots.items():
        tiny.make_run(root, objective=objective, hidden=64, test_rows=60)
    with tiny.only_rank():
        yield roots


@pytest.fixture
def rank(shared: dict[Objective, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Trains a run in this process, with `tiny.make_run`'s options; called again for the same name it continues."""

    def run(objective: Objective, name: str = "run", **options: object) -> RunConfig:
        root = tmp_path / name
        config = tiny.make_run(
            root, objective=objective, shared=shared[objective], dropout=0.0, test_rows=60, **options
        )
        train_here(root, monkeypatch)
        return config

    return run


def files_of(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.mark.train
@pytest.mark.parametrize("method", list(MethodType))
@pytest.mark.parametrize("objective", METRICS)
def test_three_steps_of_each_method_end_in_a_model_that_chats(
    objective: Objective, method: MethodType, rank: Callable, shared: dict[Objective, Path]
) -> None:
    prepared = shared[objective] / "workspace" / "prepared"
    before = files_of(prepared)
    # In large batches, since the reference works through all rows before the first step.
    report = finished(rank(objective, method=method, steps=3, every=3, evaluate=3, micro_batch=64))
    assert files_of(prepared) == before, "all runs on the volume share it: nothing of this one goes there"
    kind = "Adapter" if method.adapts else "Model"
    assert (report.artifact.kind, report.artifact.api, report.final_step) == (kind, "Chat", 3)
    score = report.evaluation.scores[0]
    assert (score.metric, score.samples) == (METRICS[objective], 60)


@pytest.mark.train
@pytest.mark.parametrize("objective", METRICS)
def test_it_learns_which_answers_are_good(objective: Objective, rank: Callable) -> None:
    config = rank(
        objective, method=MethodType.FULL, steps=60, every=60, micro_batch=32, learning_rate=2e-3, evaluate=30
    )
    report = finished(config)
    for score in report.evaluation.scores:
        assert score.improvement.lower > 0, score
        assert score.tuned.value > 0.85


@pytest.mark.train
@pytest.mark.parametrize(
    ("objective", "method"), [(Objective.DPO, MethodType.FULL), (Objective.KTO, MethodType.LORA)], ids=str
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    objective: Objective, method: MethodType, rank: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"method": method, "steps": 6, "every": 100, "accumulation": 2, "micro_batch": 64, "learning_rate": 1e-3}
    whole = rank(objective, "whole", **plan)
    original = callbacks.Checkpointing.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self._status.raise_stop()
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpointing, "on_step_end", on_step_end)
        with pytest.raises(Preempted, match="at step 3"):
            rank(objective, "cut", **plan, evaluate=2)
    file = tmp_path / "cut/workspace/run/checkpoints/reference-train.npz"
    written_at = file.stat().st_mtime_ns
    (tmp_path / "cut/status/stop").unlink()
    cut = rank(objective, "cut", **plan, evaluate=2)
    assert file.stat().st_mtime_ns == written_at, "found, not worked out again"
    first, second = final_weights(whole), final_weights(cut)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) == 0.0


# What is kept of the model before training.


def test_figures_are_found_again_only_for_what_they_were_made_for(tmp_path: Path) -> None:
    figures = {"a": np.arange(3.0), "b": np.arange(3.0)}
    cache = ReferenceCache(tmp_path / "run", "key")
    assert cache.load("train", ("a", "b"), 3) is None
    cache.save("train", figures)
    assert cache.load("train", ("a", "b"), 3)["b"].tolist() == [0.0, 1.0, 2.0]
    assert cache.load("train", ("a", "b"), 4) is None, "other rows"
    assert cache.load("train", ("a", "c"), 3) is None, "another objective"
    assert ReferenceCache(tmp_path / "run", "other").load("train", ("a", "b"), 3) is None
    path = tmp_path / "run/reference-train.npz"
    os.truncate(path, path.stat().st_size // 2)
    assert cache.load("train", ("a", "b"), 3) is None, "half a file"


# Scores.


def test_a_preference_is_compared_with_the_bases_and_a_gain_with_a_coin() -> None:
    base = np.log([[0.1, 0.2], [0.3, 0.1], [0.1, 0.4]])
    tuned = np.log([[0.3, 0.2], [0.3, 0.1], [0.2, 0.3]])
    preference, reward = preferences.compare_pairs(base, tuned).scores
    assert (preference.base.value, preference.tuned.value) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert preference.improvement.value == pytest.approx(1 / 3)
    # The second pair gained nothing, which is no hit.
    assert (reward.metric, reward.base.value, reward.tuned.value) == ("rewardAccuracy", 0.5, pytest.approx(2 / 3))


def test_the_area_under_the_curve_is_that_of_all_pairs_ties_counting_half() -> None:
    good = np.array([True, True, False, False, False])
    gained = np.array([2.0, 1.0, 1.0, 0.0, 3.0])
    rows = np.array([[0, 1, 2, 3, 4], [0, 0, 4, 4, 4], [0, 1, 0, 1, 0]])
    # 2 beats 1 and 0; 1 beats 0 and ties with 1: 3.5 of 6. Then 2 against 3 only. Then no bad row at all.
    assert preferences.area_under_curve(good, gained, rows).tolist() == pytest.approx([3.5 / 6, 0.0, 0.5])


def test_the_area_under_the_curve_of_many_rows_takes_no_matrix_of_all_pairs() -> None:
    rows = 40_000
    good = np.arange(rows) % 2 == 0
    tracemalloc.start()
    (area,) = preferences.area_under_curve(good, np.where(good, 1.0, 0.0), np.arange(rows)[None])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert area == 1.0
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("gained", "figure", "explanation"),
    [
        ([2.0, 3.0, 0.0, 1.0], 1.0, "Every good answer gained more than every bad one"),
        ([0.0, 1.0, 2.0, 3.0], 0.0, "Every bad answer gained more than every good one"),
        ([1.0, 1.0, 1.0, 1.0], 0.5, "Nearly all bootstrap samples have the same value"),
    ],
)
def test_it_is_told_why_an_interval_has_no_width(gained: list[float], figure: float, explanation: str) -> None:
    good = np.repeat([True, True, False, False], 10)
    evaluation, notes = preferences.compare_rated(good, np.repeat(gained, 10))
    assert evaluation.scores[0].tuned.value == figure
    assert notes[1] == f"{explanation}, so the bootstrap interval has no width."


def test_rated_answers_of_one_kind_measure_nothing() -> None:
    evaluation, notes = preferences.compare_rated(np.array([True, True]), np.array([1.0, 2.0]))
    assert evaluation.scores == []
    assert "same rating" in notes[0]
