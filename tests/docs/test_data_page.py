"""docs/data.md: its rows are read as it says, its fields exist, its manifest is valid, its limits are the code's."""

import json
import re

import pytest
import yaml

from hone.contract.objectives import objectives_of
from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data import kinds, readers
from hone_trainer.data.formats import COLUMNS, detect, to_sample
from tests.docs.support import ROOT, TYPES, blocks, field_exists, problems

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([\w, –]+) \| `(\{.*\})` \|$", PAGE, re.MULTILINE)


def test_it_shows_every_format_in_the_order_of_detection() -> None:
    assert [format for format, _, _ in ROWS] == [format.value for format in COLUMNS]


@pytest.mark.parametrize(("format", "objectives", "row"), ROWS)
def test_a_row_is_of_its_format_and_for_its_objectives(format: str, objectives: str, row: str) -> None:
    made = json.loads(row)
    assert detect(made) is DataFormat(format)
    assert to_sample(made, DataFormat(format))
    assert objectives == (", ".join(objective.value for objective in objectives_of(DataFormat(format))) or "–")


def test_it_names_every_suffix_and_no_other() -> None:
    named = set(re.findall(r"`(\.\w+)`", PAGE))
    assert named == {*kinds._SUFFIXES, *kinds._CODEC_SUFFIXES}


def test_its_limits_are_those_of_the_code() -> None:
    limits = [int(figure) << 20 for figure in re.findall(r"(\d+) MiB", PAGE)]
    assert limits == [readers.MAX_ROW_BYTES, readers.MAX_ARRAY_BYTES]


def test_its_manifest_is_valid() -> None:
    (block,) = blocks(PAGE, "yaml")
    assert problems(yaml.safe_load(block)) == []


def test_every_field_in_it_exists() -> None:
    fields = set(re.findall(r"`((?:spec|status)\.[a-zA-Z.]+)`", PAGE))
    assert len(fields) >= 5
    assert [field for field in fields if not any(field_exists(kind, field) for kind in TYPES)] == []


def test_it_names_every_choice_of_what_carries_loss() -> None:
    section = PAGE.partition("## What carries loss")[2]
    assert [choice for choice in TrainOn if f"`{choice.value}`" not in section] == []
