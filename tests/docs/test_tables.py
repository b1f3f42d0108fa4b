"""The generated tables of the documentation: as the code has them, what people wrote next to them unchanged."""

from pathlib import Path

import pytest

from dev import tables
from hone.contract.objectives import Objective

HAND = '| format | objective | a row |\n|---|---|---|\n| `TextLabel` | SFT | `{"text": "a"}` |\n'


def test_every_page_is_as_the_code_has_it() -> None:
    assert tables.stale() == {}


def test_a_stale_page_is_found_and_written(tmp_path: Path) -> None:
    for name in tables.PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# A page\n")
    page = tmp_path / tables.PAGES[0]
    page.write_text("Before\n<!-- generated: capabilities -->\nold\n<!-- end -->\nafter\n")
    ((path, text),) = tables.stale(tmp_path).items()
    assert path == page
    assert text.startswith("Before\n<!-- generated: capabilities -->\n\n| objective")
    assert text.endswith("|\n\n<!-- end -->\nafter\n")
    assert "| `QLoRA` | DDP, ZeRO-2 |" in text


def test_only_the_column_of_objectives_is_generated_where_rows_are_written_by_hand() -> None:
    assert tables.formats(HAND) == HAND.replace("SFT", "Classification")


def test_a_block_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        tables.render("<!-- generated: nothing -->\n<!-- end -->")


def test_every_objective_has_an_example() -> None:
    assert [objective for objective, links in tables.examples().items() if not links] == []
    assert list(tables.examples()) == list(Objective)
