"""docs/data.md: its rows are read as it says, its fields exist, its manifest is valid, its limits are the code's."""

import json
import re

import pytest
import yaml

from hone.api.dataset import HeldOut
from hone.contract.objectives import OBJECTIVES, Objective, objectives_of
from hone.contract.runconfig import DataPaths
from hone.contract.settings import DataFormat, TrainOn
from hone.core.finetunejob.sources.data import DEFAULT_HELD_OUT
from hone_trainer.data import build_errors, kinds, readers
from hone_trainer.data.formats import COLUMNS, detect, to_sample
from hone_trainer.data.read import rename
from hone_trainer.data.splits import prompt_key
from tests.docs.support import ROOT, TYPES, blocks, field_exists, problems

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([\w, –]+) \| `(\{.*\})` \|$", PAGE, re.MULTILINE)


def test_it_shows_every_format_in_the_order_of_detection() -> None:
    assert [format for format, _, _ in ROWS] == [format.value for format in COLUMNS]


@pytest.mark.parametrize(("format", "objectives", "row"), ROWS)
def test_a_row_is_of_its_format_and_for_its_objectives(format: str, objectives: str, row: str) -> None:
    parsed = json.loads(row)
    assert detect(parsed) is DataFormat(format)
    assert to_sample(parsed, DataFormat(format))
    assert objectives == (", ".join(objective.value for objective in objectives_of(DataFormat(format))) or "–")


def test_it_names_every_suffix_and_no_other() -> None:
    named = set(re.findall(r"`(\.\w+)`", PAGE))
    assert named == {*kinds._SUFFIXES, *kinds._CODEC_SUFFIXES}


def test_its_limits_are_those_of_the_code() -> None:
    limits = [int(figure) << 20 for figure in re.findall(r"(\d+) MiB", PAGE)]
    assert limits == [readers.MAX_ROW_BYTES, readers.MAX_ARRAY_BYTES, *[kinds.MIN_EXPANSION] * 2]


@pytest.mark.parametrize(("format", "objectives", "row"), ROWS)
def test_strings_stay_strings_and_turns_are_turns(format: str, objectives: str, row: str) -> None:
    turns = {DataFormat.MESSAGES, DataFormat.SHARE_GPT, DataFormat.ALPACA}
    assert to_sample(json.loads(row), DataFormat(format)).is_chat == (DataFormat(format) in turns)


def test_its_manifest_is_valid_and_makes_turns_of_two_columns_of_text() -> None:
    manifests = [yaml.safe_load(block) for block in blocks(PAGE, "yaml")]
    assert [problem for manifest in manifests for problem in problems(manifest)] == []
    mapped = (spec["columns"] for manifest in manifests if "columns" in (spec := manifest["spec"]["dataset"]))
    columns, classes = sorted(mapped, key=lambda each: "label" in each)
    assert f"`columns: {{{', '.join(f'{ours}: {theirs}' for ours, theirs in columns.items())}}}`" in PAGE
    row = rename({"question": "Is it good?", "answer": "Yes."}, columns)
    format = detect(row, OBJECTIVES[Objective.SFT].data.formats)
    assert format is DataFormat.ALPACA
    assert [turn["role"] for turn in to_sample(row, format).messages] == ["user", "assistant"]
    row = rename({"comment": "It came late.", "late": 1, "rude": 0, "damaged": 0}, classes)
    assert to_sample(row, DataFormat.TEXT_LABEL).label == ("late",)


def test_its_shares_are_those_of_the_code() -> None:
    section = PAGE.partition("## Splits")[2].partition("\n## ")[0]
    shares = {float(share) / 100 for share in re.findall(r"(\d+) % of the training rows", section)}
    paths = DataPaths(train="rows.jsonl")
    assert shares == {DEFAULT_HELD_OUT} == {paths.validation_fraction, paths.test_fraction}
    (most,) = (limit.le for limit in HeldOut.model_fields["fraction"].metadata if hasattr(limit, "le"))
    assert f"up to {most}" in section
    cut = [
        float(share) / 100
        for share in re.findall(r"(\d+) %", PAGE.partition("## Tokens on which the loss is computed")[2])
    ]
    assert cut == [build_errors.WARN_TRUNCATED, build_errors.FAIL_TRUNCATED]


def test_prompts_that_differ_in_case_and_spacing_share_a_split() -> None:
    keys = {prompt_key(to_sample({"text": text, "label": 1}, DataFormat.TEXT_LABEL)) for text in ("So so", " so SO\n")}
    assert len(keys) == 1


def test_it_names_the_objectives_that_leave_validation_unused() -> None:
    (listed,) = re.findall(r"([\w, ]+) leave them unused", PAGE.replace("\n", " "))
    assert re.split(", | and ", listed.strip()) == [o.value for o, facts in OBJECTIVES.items() if facts.generates]


def test_every_field_in_it_exists() -> None:
    fields = set(re.findall(r"`((?:spec|status)\.[a-zA-Z.]+)`", PAGE))
    assert len(fields) >= 5
    assert [field for field in fields if not any(field_exists(kind, field) for kind in TYPES)] == []


def test_it_names_every_choice_of_what_carries_loss() -> None:
    section = PAGE.partition("## Tokens on which the loss is computed")[2]
    assert [choice for choice in TrainOn if f"`{choice.value}`" not in section] == []
