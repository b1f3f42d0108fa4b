"""The benchmark's own arithmetic and its turns, without a training."""

import json
import random
from pathlib import Path

import pytest

from dev import bench_runs
from dev.bench_figures import ratio_of_medians, ratio_of_sums
from dev.bench_turns import OWN_HEAP, Block, Side, heap_of, take_turns
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.planfile import load_plan


def test_a_ratio_of_turns_is_found_with_its_interval() -> None:
    chance = random.Random(0)
    under = [chance.uniform(0.9, 1.1) for _ in range(40)]
    over = [1.03 * seconds * chance.uniform(0.98, 1.02) for seconds in under]
    figure = ratio_of_sums(over, under)
    assert figure.low < 1.03 < figure.high
    assert figure.high - figure.low < 0.02
    assert figure.value == pytest.approx(1.03, abs=0.01)


def test_what_slows_both_sides_of_a_turn_widens_nothing() -> None:
    # Every turn another load, up to ten times as much: each side by itself would show nothing.
    under = [float(load) for load in range(1, 11)]
    figure = ratio_of_sums([1.1 * seconds for seconds in under], under)
    assert (figure.low, figure.high) == (pytest.approx(1.1), pytest.approx(1.1))


def test_the_ratio_of_medians_does_not_heed_a_single_slow_step() -> None:
    steps = [[0.2] * 9 + [5.0]] * 10
    assert ratio_of_medians(steps, [[0.2] * 10] * 10).value == pytest.approx(1.0)


@pytest.mark.parametrize(("over", "under"), [([1.0], [1.0]), ([1.0, 1.0], [1.0, 1.0, 1.0])])
def test_too_few_turns_are_refused(over: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="turns"):
        ratio_of_sums(over, under)


class Runner:
    """Stands for a Side, and notes when it works."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def ready(self) -> None:
        self.notes.append(f"{self.name} ready")

    def block(self) -> Block:
        self.notes.append(self.name)
        return Block(seconds=[1.0], cpu_seconds=1.0, tokens=len(self.notes))


def test_the_sides_take_turns_and_change_who_begins() -> None:
    notes: list[str] = []
    turns = take_turns([Runner("a", notes), Runner("b", notes)], 3, lambda _: None)  # type: ignore[list-item]
    assert notes == ["a ready", "b ready", "a", "b", "a", "b", "b", "a", "a", "b"]
    assert [[block.tokens for block in turn] for turn in turns] == [[5, 6], [8, 7], [9, 10]], "a's block comes first"


def test_both_sides_have_the_same_heap_unless_one_is_to_have_its_own() -> None:
    of_hone = heap_of({"kind": "hone"})
    assert "glibc.malloc" in of_hone["GLIBC_TUNABLES"]
    assert heap_of({"kind": "bare"}) == heap_of({"kind": "trl"}) == of_hone
    assert heap_of({"kind": "bare", "heap": OWN_HEAP}) == {}


def test_a_side_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    side = Side("odd", {"kind": "no such kind"}, tmp_path, threads=1)
    try:
        with pytest.raises(RuntimeError, match=r"odd has ended(.|\n)*no such kind"):
            side.ready()
    finally:
        side.end()


@pytest.mark.slow
def test_a_run_is_planned_on_all_its_rows(tmp_path: Path) -> None:
    model = bench_runs.write_model(tmp_path / "model", hidden=64, layers=1)
    rows = bench_runs.write_rows(tmp_path / "rows.jsonl", bench_runs.short_lengths(40))
    run = bench_runs.plan_run(tmp_path / "run", model, rows)
    planned = load_plan(RunConfig.from_dict(json.loads(run.read_text())))
    assert planned is not None
    assert planned.dataset.train_rows == 40
