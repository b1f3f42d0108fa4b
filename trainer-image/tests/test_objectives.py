"""The table of objectives: every objective is in it, with a module and scores that are there."""

import ast
from pathlib import Path

import pytest

from hone.contract.objectives import OBJECTIVES
from hone.contract.settings import Objective
from hone_trainer import objectives
from hone_trainer.objectives import PARTS, scorer


def test_every_objective_has_its_parts() -> None:
    assert set(PARTS) == set(Objective)


def test_the_operator_knows_which_models_get_a_head() -> None:
    with_head = {objective for objective, parts in PARTS.items() if parts.architecture.has_head}
    assert with_head == {objective for objective, facts in OBJECTIVES.items() if facts.has_head}


@pytest.mark.parametrize("objective", Objective)
def test_its_module_builds_a_trainer_and_its_scores_are_there(objective: Objective) -> None:
    # Read, and not imported: TRL's trainers take seconds each, and the tests that train import them.
    source = (Path(objectives.__file__).parent / f"{objective.value.lower()}.py").read_text(encoding="utf-8")
    assert "build" in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    assert callable(scorer(objective))
