"""The comparison of default settings: its runs, what each sets, its rows, and the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dev.outcomes import __main__ as outcomes
from dev.outcomes.arms import settings
from dev.outcomes.page import render
from dev.outcomes.tasks import TASKS, write
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective

GENERATED = [name for name, task in TASKS.items() if not task.needs_data]


def test_every_task_is_tried_with_lora_and_full_and_both_settings() -> None:
    runs = outcomes.runs()
    assert len(runs) == len(set(runs)) == 4 * len(TASKS)


def test_trls_defaults_are_those_of_its_classes() -> None:
    chosen = settings("TRL's defaults", Objective.DPO, MethodType.LORA)
    assert chosen["hyperparameters"]["learningRate"] == 1e-6
    assert chosen["hyperparameters"]["globalBatchSize"] == 8
    assert chosen["method"]["lora"] == {"rank": 8, "alpha": 8, "dropout": 0.0}


def test_hones_defaults_set_nothing_but_the_method() -> None:
    assert settings("Hone's defaults", Objective.SFT, MethodType.FULL) == {"method": {"type": "Full"}}


@pytest.mark.parametrize("name", GENERATED)
def test_no_test_row_is_trained_on(name: str, tmp_path: Path) -> None:
    paths = write(TASKS[name], tmp_path, tmp_path)
    test, train = (Path(paths[split]).read_text().splitlines() for split in ("test", "train"))
    assert (len(test), len(train)) == (TASKS[name].test, TASKS[name].train)
    assert not set(test) & set(train)


@pytest.mark.parametrize("run", [run for run in outcomes.runs() if run.split("/")[0] in GENERATED])
def test_a_run_is_valid(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes.tasks, "TASKS", {run.split("/")[0]: _with_model(run, tmp_path)})
    config = outcomes.config_of(run, tmp_path, tmp_path)
    assert config.method.type == run.split("/")[1]


def test_a_run_without_its_model_says_what_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes.tasks, "TASKS", {"tickets": _with_model("tickets", None)})
    with pytest.raises(FileNotFoundError, match="smollm2 build"):
        outcomes.config_of("tickets/LoRA/Hone's defaults", tmp_path, tmp_path)


def test_the_page_shows_intervals_and_failures() -> None:
    figure = {"value": 0.5, "lower": 0.4, "upper": 0.6}
    score = {"metric": "exactMatch", "samples": 100, "base": figure, "tuned": figure, "improvement": figure}
    ran = {"score": score, "forgetting": figure, "plan": {"steps": 40, "rate": 2e-4}, "minutes": 1.25}
    page = render({"tickets/LoRA/Hone's defaults": ran, "tickets/Full/TRL's defaults": {"failed": "no memory"}})
    assert "| LoRA | Hone's defaults | exactMatch | 100 | 0.500 [0.400, 0.600] |" in page
    assert "| 0.500 [0.400, 0.600] | 40 | 2.0e-04 | 1.2 |" in page
    assert "| Full | TRL's defaults | failed: no memory |" in page
    assert page.count("Not run yet.") == len(TASKS) - 1


def test_the_page_in_docs_has_all_tasks() -> None:
    page = outcomes.PAGE.read_text(encoding="utf-8")
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(TASKS)


def _with_model(run: str, directory: Path | None) -> object:
    if directory:
        (directory / "config.json").write_text(json.dumps({}))
    return replace(TASKS[run.split("/")[0]], find_model=lambda: directory)
