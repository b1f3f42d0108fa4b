"""docs/sizing.md says what the planner plans."""

from pathlib import Path

import pytest

from dev import sizing
from dev.sizing_page import PAGE, line
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective

TEXT = PAGE.read_text(encoding="utf-8")
TRIED = [setup for setup in sizing.SETUPS if setup.method is MethodType.LORA and setup.memory == 80][:3]
"""Setups that train a model in the same way, so that it is measured once."""


def test_every_plan_is_on_the_page() -> None:
    for model in sizing.MODELS:
        assert TEXT.count(f"\n| {model} | ") == len(sizing.SETUPS)
    for objective in Objective:
        if objective is not Objective.SFT:
            assert TEXT.count(f"\n| {objective} | ") == 1


def test_no_plan_holds_more_than_a_gpu_has() -> None:
    fitting = [row.split(" | ") for row in TEXT.splitlines() if " | fits | " in row and " × " in row]
    assert len(fitting) > 20
    for _, _, gpus, _, _, memory, *_ in fitting:
        assert int(memory) <= int(gpus.split(" × ")[1])


@pytest.mark.slow
def test_the_page_is_what_the_planner_says_today(tmp_path: Path) -> None:
    model = sizing.Model(sizing.OBJECTIVES_OF, tmp_path)
    for setup in TRIED:
        assert line(sizing.planned(model, setup), []) in TEXT, "run: python3 -m dev.sizing"
