"""A cell of the matrix for each objective, tried again: it ends as docs/matrix.md says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dev import matrix
from dev.architectures import __main__ as architectures
from dev.basemodel import cache
from hone.contract.objectives import OBJECTIVES

PAGE = matrix.PAGE.read_text(encoding="utf-8")
PLACES = list(matrix.PLACEMENTS)
# Each with another method and placement, so that together they meet all of them.
CELLS = [
    f"{objective}/{methods[number % len(methods)]}/{PLACES[number % len(PLACES)]}"
    for number, (objective, facts) in enumerate(OBJECTIVES.items())
    for methods in [list(facts.defaults.learning_rate)]
]


@pytest.fixture(scope="module")
def base() -> Path:
    """The small base model."""
    model = cache.find()
    if model is None:
        pytest.fail("there is no base model yet: python3 -m dev.basemodel build")
    return model


def shown(cell: str) -> str:
    """What the page says of a cell."""
    objective, method, place = cell.split("/")
    (row,) = re.findall(rf"^\| {objective} \| {method} \| (.+) \|$", PAGE, re.MULTILINE)
    return row.split(" | ")[PLACES.index(place)].partition(" (")[0]


@pytest.mark.matrix
@pytest.mark.timeout(matrix.SECONDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_ends_as_the_page_says(cell: str, base: Path) -> None:
    outcome = matrix.run(cell, base)
    assert outcome.result == shown(cell), outcome
    assert matrix.as_it_should(cell, outcome), outcome


@pytest.mark.matrix
@pytest.mark.timeout(matrix.SECONDS)
def test_weights_that_zero_3_divides_are_trained_and_exported() -> None:
    """Those of the small base model are so small that each rank keeps them whole."""
    cell = "Llama, wide/LoRA/ZeRO-3"
    # In a process that has computed nothing yet, since its ranks are forks.
    run = f"from dev.architectures import __main__, cells; __main__.preload(); print(cells.run({cell!r}))"
    ended = subprocess.run((sys.executable, "-c", run), cwd=matrix.ROOT, check=True, capture_output=True, text=True)
    assert "Outcome(result='ran', words='Adapter'" in ended.stdout, ended.stdout + ended.stderr
    assert "| Llama, wide | adapter | adapter | adapter |" in architectures.PAGE.read_text(encoding="utf-8")


def test_every_way_to_distribute_is_among_them() -> None:
    assert {cell.split("/")[-1] for cell in CELLS} == set(PLACES)
