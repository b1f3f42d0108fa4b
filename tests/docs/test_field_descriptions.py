"""What `kubectl explain` says of objectives: each field that tells them apart names those of the table, no other."""

import re
from collections.abc import Callable

import pytest

from hone.api import descriptions
from hone.contract.objectives import OBJECTIVES, Objective, ObjectiveFacts
from hone.contract.settings import DataFormat
from hone.core.finetunejob.resources.claims import DEFAULT_WORKSPACE_SIZE
from hone.core.finetunejob.resources.runconfig import DEFAULT_OUTPUT_SIZE
from hone_trainer.planning.batches import SMALL_DATA_ROWS, default_epochs
from hone_trainer.planning.rollouts import LONGEST
from tests.docs.support import schema_of

NAMES = re.compile(rf"\b({'|'.join(OBJECTIVES)})\b")

Fits = Callable[[ObjectiveFacts], object]
FIELDS: dict[str, Fits] = {
    "dataset.validation": lambda facts: facts.generates,
    "dataset.trainOn": lambda facts: facts.data.marks_tokens,
    "dataset.balance": lambda facts: facts.data.balances,
    "teacher": lambda facts: facts.needs.teacher,
    "reward": lambda facts: facts.needs.reward,
    "compute.microBatchSize": lambda facts: facts.data.least_micro_batch > 1,
    "hyperparameters.globalBatchSize": lambda facts: (
        facts.data.least_micro_batch > 1 or facts.needs.reward or facts.defaults.largest_batch_size is not None
    ),
    "hyperparameters.sequenceLength": lambda facts: facts.generates,
    "hyperparameters.packing": lambda facts: facts.data.packs,
    "hyperparameters.beta": lambda facts: facts.defaults.beta is not None,
    "hyperparameters.generations": lambda facts: facts.needs.reward,
    "hyperparameters.maxCompletionLength": lambda facts: facts.generates,
    "hyperparameters.temperature": lambda facts: facts.generates,
    "evaluation.maxNewTokens": lambda facts: facts.generates,
    "method.lora.dropout": lambda facts: facts.defaults.lora_dropout,
    "output.merge": lambda facts: facts.has_head,
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
    mention = re.search(rf"\b{format.value} for [^()]*\(objectives? ([^)]*)\)", description("dataset.format"))
    assert mention
    assert set(NAMES.findall(mention[1])) == {
        o.value for o, facts in OBJECTIVES.items() if format in facts.data.formats
    }


@pytest.mark.parametrize("most", sorted({facts.data.least_micro_batch for facts in OBJECTIVES.values()} - {1}))
def test_the_least_rows_of_a_process_are_described(most: int) -> None:
    for path in ("compute.microBatchSize", "hyperparameters.globalBatchSize"):
        assert f"KTO: at least {most}" in description(path)


def test_defaults_are_the_code_s() -> None:
    assert f"Default: {LONGEST}, at most half of sequenceLength" in description("hyperparameters.maxCompletionLength")
    assert f"Default: {DEFAULT_OUTPUT_SIZE}." in description("output.size")
    assert f"Default: {DEFAULT_WORKSPACE_SIZE}." in description("workspace.size")


def test_epochs_by_the_number_of_rows_are_the_trainer_s() -> None:
    assert descriptions.FEW_ROWS == SMALL_DATA_ROWS
    assert default_epochs(SMALL_DATA_ROWS - 1) == descriptions.EPOCHS_OF_FEW
    assert default_epochs(SMALL_DATA_ROWS) == descriptions.EPOCHS_OF_MANY


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_default_is_described_by_its_number(objective: Objective) -> None:
    defaults = OBJECTIVES[objective].defaults
    expected = {"hyperparameters.learningRate": [*defaults.learning_rate.values()]}
    expected |= {"hyperparameters.epochs": [defaults.epochs], "hyperparameters.beta": [defaults.beta]}
    for path, values in expected.items():
        text = description(path).partition("Default: ")[2]
        for value in values:
            if value is not None:
                number = re.escape(descriptions.number(value))
                assert re.search(rf"(^|[ ;]){number} for [^;\d]*\b{objective}\b", text), (path, value)


@pytest.mark.parametrize(("value", "text"), [(2e-4, "2e-4"), (8e-6, "8e-6"), (0.03, "0.03"), (0.0, "0"), (64, "64")])
def test_a_number_is_written_as_in_a_manifest(value: float, text: str) -> None:
    assert descriptions.number(value) == text
    assert float(text) == value


def test_an_unknown_reference_in_a_description_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        descriptions.fill("Default: {nothing}.")
