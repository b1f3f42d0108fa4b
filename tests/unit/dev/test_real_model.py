"""Runs of each objective on a real model: their rows and configuration, without the model."""

import json
from pathlib import Path

import pytest

from dev import real_model
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import EvaluationSummary, Interval, Score

KEYS = {
    "Messages": {"messages"},
    "TextLabel": {"text", "label"},
    "Preference": {"prompt", "chosen", "rejected"},
    "UnpairedPreference": {"prompt", "completion", "label"},
    "Prompt": {"prompt", "reference"},
}


@pytest.mark.parametrize("objective", Objective)
def test_each_objective_gets_rows_in_its_own_format(objective: Objective, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    topics = [f"topic_{number}" for number in range(9)]
    source.write_text("text,category\n" + "".join(f"Text {i}?,{topics[i % 9]}\n" for i in range(90)))
    config = real_model.config_of(objective, tmp_path / "model", source, tmp_path / "all" / objective.value, 20)
    rows = [json.loads(line) for line in Path(config.data.train).read_text().splitlines()]
    assert len(rows) == 80, "the ninth topic is left out"
    assert {frozenset(row) for row in rows} == {frozenset(KEYS[OBJECTIVES[objective].data.formats[0].value])}
    assert config.hyperparameters.max_steps == 20
    assert bool(config.paths.teacher) == (objective is Objective.DISTILLATION)


def test_the_outcome_of_a_run_has_its_first_and_last_loss_and_its_scores(tmp_path: Path) -> None:
    steps = [{"msg": "step", "step": step, "loss": loss} for step, loss in ((1, 4.5), (2, 3.0), (3, 2.25))]
    (tmp_path / "log").write_text("".join(json.dumps(step) + "\n" for step in steps))
    values = {"base": 4.0, "tuned": 2.0, "improvement": 2.0}
    intervals = {name: Interval(value=value, lower=value - 1, upper=value + 1) for name, value in values.items()}
    score = Score(metric="loss", samples=4, higher_is_better=False, **intervals)
    outcome = real_model._figures(tmp_path, EvaluationSummary(scores=[score]))
    assert outcome == "loss 4.5 → 2.25; loss 4 → 2 (+2 [1, 3])"
