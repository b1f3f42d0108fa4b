"""Every objective has its components in the trainer, and every method its record, both light to import."""

import subprocess
import sys

import pytest

from hone.contract.methods import METHODS as METHOD_FACTS
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone_trainer.methods import METHODS
from hone_trainer.objectives import components

LARGE = ("torch", "transformers", "trl", "datasets", "peft", "deepspeed", "numpy")


def test_records_are_imported_without_any_large_library() -> None:
    code = (
        "import sys; from hone.contract.objectives import Objective; from hone_trainer.methods import METHODS;"
        "from hone_trainer.objectives import components; [components(objective) for objective in Objective];"
        f"print([name for name in {LARGE!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_every_method_has_its_facts() -> None:
    assert list(METHOD_FACTS) == list(MethodType)
    assert set(METHODS) == set(MethodType)


@pytest.mark.parametrize("objective", Objective)
def test_an_objective_has_components_that_fit_its_facts(objective: Objective) -> None:
    facts, parts = OBJECTIVES[objective], components(objective)
    assert parts.architecture.has_head == facts.has_head
    assert bool(parts.activation_terms.generated_micro_batches) == facts.generates
    assert callable(parts.evaluate)


@pytest.mark.parametrize("objective", Objective)
def test_every_method_that_goes_with_it_has_a_learning_rate(objective: Objective) -> None:
    assert set(OBJECTIVES[objective].defaults.learning_rate) <= set(MethodType)
    assert OBJECTIVES[objective].defaults.learning_rate
