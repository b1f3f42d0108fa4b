"""A cell of the matrix for each objective, tried again: it ends as docs/matrix.md says."""

import re
from pathlib import Path

import pytest

from dev import matrix
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


def test_every_way_to_distribute_is_among_them() -> None:
    assert {cell.split("/")[-1] for cell in CELLS} == set(PLACES)
