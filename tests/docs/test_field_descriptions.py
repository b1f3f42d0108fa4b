"""What `kubectl explain` says of objectives: each field that tells them apart names those of the table, no other."""

import re
from collections.abc import Callable

import pytest

from hone.contract.objectives import OBJECTIVES, ObjectiveFacts
from hone.contract.settings import DataFormat
from hone.core.finetunejob.resources.claims import DEFAULT_WORKSPACE_SIZE
from hone.core.finetunejob.resources.runconfig import DEFAULT_OUTPUT_SIZE
from hone_trainer.planning.rollouts import LONGEST
from tests.docs.support import schema_of

NAMES = re.compile(rf"\b({'|'.join(OBJECTIVES)})\b")

Fits = Callable[[ObjectiveFacts], object]
FIELDS: dict[str, Fits] = {
    "dataset.validation": lambda facts: facts.generations,
    "dataset.trainOn": lambda facts: facts.marks_tokens,
    "dataset.balance": lambda facts: facts.balances,
    "teacher": lambda facts: facts.teacher,
    "reward": lambda facts: facts.rewarded,
    "compute.microBatchSize": lambda facts: facts.least_micro_batch > 1,
    "hyperparameters.globalBatchSize": lambda facts: facts.least_micro_batch > 1 or facts.rewarded,
    "hyperparameters.sequenceLength": lambda facts: facts.generations,
    "hyperparameters.packing": lambda facts: facts.packs,
    "hyperparameters.beta": lambda facts: facts.beta is not None,
    "hyperparameters.generations": lambda facts: facts.rewarded,
    "hyperparameters.maxCompletionLength": lambda facts: facts.generations,
    "hyperparameters.temperature": lambda facts: facts.generations,
    "evaluation.maxNewTokens": lambda facts: facts.generations,
    "method.lora.dropout": lambda facts: facts.dropout,
}


def description(path: str) -> str:
    """What the CRD says of a field of the spec."""
    node = schema_of("FineTuneJob")["properties"]["spec"]
    for key in path.split("."):
        node = node["properties"][key]
    return str(node["description"])


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_names_the_objectives_that_it_is_for(path: str) -> None:
    assert set(NAMES.findall(description(path))) == {o.value for o, facts in OBJECTIVES.items() if FIELDS[path](facts)}


@pytest.mark.parametrize("format", [DataFormat.PREFERENCE, DataFormat.UNPAIRED_PREFERENCE, DataFormat.PROMPT])
def test_a_format_names_its_objectives(format: DataFormat) -> None:
    told = re.search(rf"\b{format.value} for [^()]*\(objectives? ([^)]*)\)", description("dataset.format"))
    assert told
    assert set(NAMES.findall(told[1])) == {o.value for o, facts in OBJECTIVES.items() if format in facts.formats}


@pytest.mark.parametrize("most", sorted({facts.least_micro_batch for facts in OBJECTIVES.values()} - {1}))
def test_the_least_rows_of_a_process_are_told(most: int) -> None:
    for path in ("compute.microBatchSize", "hyperparameters.globalBatchSize"):
        assert f"KTO: at least {most}" in description(path)


def test_defaults_are_the_code_s() -> None:
    assert f"Default: {LONGEST}, at most half of sequenceLength" in description("hyperparameters.maxCompletionLength")
    assert f"default: {DEFAULT_OUTPUT_SIZE}." in description("output.size")
    assert f"default: {DEFAULT_WORKSPACE_SIZE}." in description("workspace.size")
