"""The matrix of what combines with what: which cells there are, which are run again, and the page that shows them."""

import json
from pathlib import Path

import pytest

from dev import matrix
from dev.data.formats import FORMATS
from dev.matrix import EXAMPLE, Memory, Outcome
from dev.matrix_page import render
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import EvaluationSummary, Interval, Score


def test_there_is_a_cell_for_each_combination_and_an_example_of_each_objective() -> None:
    cells = matrix.cells()
    assert len(cells) == len(set(cells)) == len(OBJECTIVES) * (len(MethodType) * len(matrix.PLACEMENTS) + 1)
    assert {"SFT/LoRA/1 process", "KTO/Full/ZeRO-3", "DPO/example"} <= set(cells)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_rows_and_an_example_that_runs_in_one_pod(objective: Objective, tmp_path: Path) -> None:
    assert matrix.DATA[OBJECTIVES[objective].data.formats[0]] in FORMATS
    tried, example = tmp_path / "tried", tmp_path / "example"
    for directory in (tried, example):
        directory.mkdir()
    config = matrix.config_of(f"{objective}/LoRA/ZeRO-2", tmp_path, tried)
    assert (config.objective, config.topology.zero_stage, config.topology.world_size) == (objective, 2, 2)
    first = json.loads(Path(config.data.train).read_text().splitlines()[0])
    assert first
    config = matrix.config_of(f"{objective}/{EXAMPLE}", tmp_path, example)
    assert (config.objective, config.topology.world_size) == (objective, 1)
    assert Path(config.data.train).is_file()


def test_only_what_has_not_ended_as_it_should_is_run_again(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "matrix")
    outcomes = {"a/b/c": "ran", "a/b/d": "failed", "a/b/e": "refused", "a/example": "refused"}
    for cell, result in outcomes.items():
        memory.save(cell, Outcome(result))
    assert list(matrix.todo([*outcomes, "new"], memory, fresh=False)) == ["a/b/d", "a/example", "new"]
    assert list(matrix.todo(["a/b/c"], memory, fresh=True)) == ["a/b/c"]


@pytest.mark.slow
def test_every_cell_is_tried_once_whatever_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matrix, "run", lambda cell, base: Outcome("here"))
    # A worker imports the module again, and finds no such objective.
    cells = ["none/example", "none/LoRA/1 process", "none/LoRA/DDP"]
    outcomes = dict(matrix.run_all(cells, tmp_path))
    assert {cell: outcome.result for cell, outcome in outcomes.items()} == {
        "none/example": "failed",
        "none/LoRA/1 process": "failed",
        "none/LoRA/DDP": "here",
    }


def test_an_example_has_improved_only_outside_the_interval() -> None:
    def evaluation(lower: float) -> EvaluationSummary:
        one = Interval(value=0.5, lower=0.4, upper=0.6)
        better = Interval(value=0.1, lower=lower, upper=0.2)
        score = Score(metric="m", higher_is_better=True, samples=9, base=one, tuned=one, improvement=better)
        return EvaluationSummary(scores=[score])

    assert matrix._judge("DPO/example", evaluation(0.01), 1.0).result == "improved"
    assert matrix._judge("DPO/example", evaluation(0.0), 1.0).result == "unimproved"
    assert matrix._judge("DPO/LoRA/DDP", evaluation(-0.1), 1.0).result == "ran"
    assert matrix._judge("DPO/LoRA/DDP", EvaluationSummary(scores=[]), 1.0).result == "failed"


def test_the_page_tells_each_reason_once_and_leaves_out_what_was_not_tried() -> None:
    refusal = Outcome("refused", "`spec.method.type`: no. Use LoRA.")
    page = render(
        {"SFT/LoRA/DDP": Outcome("ran", "loss 1 → 2"), "DPO/Full/DDP": refusal, "DPO/Full/ZeRO-2": refusal},
        ["DDP", "ZeRO-2"],
    )
    assert "| SFT | LoRA | ran | – |" in page
    assert "| DPO | Full | refused (1) | refused (1) |" in page
    assert page.count("Use LoRA.") == 1
    improved = render({"DPO/example": Outcome("improved", "m 0.5 → 1", 12.4)}, ["DDP"])
    assert "| DPO | improved | m 0.5 → 1 | 12 |" in improved
