"""docs/coming-from.md: its manifests are valid, its fields exist, and rows of other tools are read as it says."""

import re
from typing import Any

import pytest
import yaml

from dev.row_shapes import SHAPES, Shape, outcome
from hone.contract.objectives import Objective
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.providers import standard
from hone_trainer.data.read import rename
from hone_trainer.data.sample import Sample
from tests.docs.support import ROOT, blocks, field_exists, problems

PAGE = (ROOT / "docs/coming-from.md").read_text(encoding="utf-8")
SERVICES = ("OpenAI", "Together", "Fireworks", "Mistral", "Bedrock")
LEARNED = {
    "OpenAI": {"supervised": "SFT", "tools": "SFT", "preference (DPO)": "DPO", "reinforcement": "GRPO"},
    "Together": {"conversational": "SFT", "instruction": "SFT", "generic text": "SFT", "preference": "DPO"},
    "Fireworks": {"chat": "SFT", "DPO": "DPO", "reinforcement": "RLOO"},
    "Mistral": {"instruct": "SFT", "function calling": "SFT", "pretraining": "SFT"},
    "Bedrock": {
        "Converse": "SFT",
        "Converse with tools": "SFT",
        "prompt and completion": "SFT",
        "reinforcement": "GRPO",
    },
}
"""The objective with which each service's rows must be read as they are."""


def shape_of(tool: str, title: str) -> Shape:
    return next(shape for shape in SHAPES if (shape.tool, shape.title) == (tool, title))


def sample_of(tool: str, title: str, format: DataFormat) -> Sample:
    shape = shape_of(tool, title)
    return to_sample(standard(rename(shape.row, shape.columns or {})), format)


def test_its_manifests_are_valid() -> None:
    manifests = [manifest for block in blocks(PAGE, "yaml") for manifest in yaml.safe_load_all(block)]
    assert [problem for manifest in manifests for problem in problems(manifest)] == []
    names = {manifest["metadata"]["name"] for manifest in manifests}
    assert all(any(name.startswith(f"from-{service.lower()}") for name in names) for service in SERVICES)


def test_its_fields_exist() -> None:
    fields = {match.partition(":")[0] for match in re.findall(r"`(spec\.[\w.]+)", PAGE)}
    assert len(fields) > 15
    assert [field for field in sorted(fields) if not field_exists("FineTuneJob", field)] == []


@pytest.mark.parametrize(
    ("tool", "title", "objective"), [(tool, *item) for tool, rows in LEARNED.items() for item in rows.items()]
)
def test_rows_of_services_are_read_as_they_are(tool: str, title: str, objective: str) -> None:
    shape = shape_of(tool, title)
    assert shape.columns is None
    assert outcome(shape, Objective(objective)).startswith("`")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.tool} {shape.title}")
def test_every_row_is_read_by_an_objective_or_refused_with_words(shape: Shape) -> None:
    words = [outcome(shape, objective) for objective in Objective]
    assert all(re.match(r"`\w+`$|refused: \S|bad row: \S", each) for each in words)
    assert any(each.startswith("`") for each in words) or shape.title == "images"


def test_calls_and_results_of_bedrock_are_those_of_openai() -> None:
    bedrock = sample_of("Bedrock", "Converse with tools", DataFormat.MESSAGES)
    openai = sample_of("OpenAI", "tools", DataFormat.MESSAGES)

    def calls(sample: Sample) -> list[Any]:
        return [message["tool_calls"] for message in sample.messages if "tool_calls" in message]

    assert calls(bedrock) == calls(openai)
    assert [message["role"] for message in bedrock.messages] == [message["role"] for message in openai.messages]
    assert bedrock.messages[2]["content"] == openai.messages[2]["content"] == "9 to 5"
    assert bedrock.tools[0]["function"]["parameters"] == openai.tools[0]["function"]["parameters"]
    assert sample_of("Bedrock", "Converse", DataFormat.MESSAGES).messages[0] == {
        "role": "system",
        "content": "Be brief.",
    }


def test_pairs_and_references_are_what_the_services_mean() -> None:
    pair = sample_of("OpenAI", "preference (DPO)", DataFormat.PREFERENCE)
    assert (pair.messages[-1]["content"], pair.rejected[0]) == ("Yes.", {"role": "assistant", "content": "Who knows."})
    assert sample_of("OpenAI", "reinforcement", DataFormat.PROMPT).references == ("yes",)
    assert sample_of("Fireworks", "reinforcement", DataFormat.PROMPT).references == ("yes",)
    assert sample_of("OpenAI", "supervised, a turn of weight 0", DataFormat.MESSAGES).untrained == {1}
