"""What the plan lets generate the answers that a run learns from, and what it refuses where a server is asked for."""

from dataclasses import replace
from typing import Any

import pytest
from test_plan import FACTS, FULL, QLORA, config_with, gang, plan_of, summary_of
from test_plan_gpus import llama

from hone.contract.objectives import Objective
from hone.contract.plan import Plan
from hone.contract.runconfig import GENERATION_GPU_SHARE
from hone.contract.settings import GenerationEngine
from hone_trainer.models.adapters import Adapted
from hone_trainer.models.facts import ModelFacts
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.plan import make_plan
from hone_trainer.planning.server_terms import (
    LEAST_ANSWERS,
    AnswerServerTerms,
    answer,
    answers_at_once,
    per_device,
    weights,
)
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB

REWARDS: dict[str, Any] = {"reward": {"functions": [{"name": "ExactMatch"}]}}
SERVER = {"url": "http://127.0.0.1:8000", "adapters": "/mnt/adapters"}


def engine_plan(
    engine: str = "Auto",
    gpus: int = 1,
    model: ModelFacts = FACTS,
    memory: int | None = 80,
    length: int = 1024,
    **sections: Any,
) -> Plan:
    """A plan of GRPO with as many GPUs for the ranks as for the server; 0: on the CPU."""
    limit = {"memoryBytes": memory * GIB} if memory else {}
    server = {"answerServer": {**SERVER, "engine": engine, "gpus": gpus, **limit}}
    place = gang(processes=max(1, gpus), gpus=gpus, **limit) if gpus else {}
    config = config_with(**{"objective": "GRPO", **REWARDS, **server, **place, **sections})
    return make_plan(PlanInputs(config, model, summary_of(1000), length))


def refusal(**more: Any) -> BadInput:
    with pytest.raises(BadInput) as error:
        engine_plan("VLLM", **more)
    return error.value


def test_on_gpus_vllm_generates_where_it_fits() -> None:
    plan = engine_plan()
    assert plan.generation_engine is GenerationEngine.VLLM
    assert plan.reasons["generationEngine"] == "The default on GPUs, where it fits in memory."
    assert "a GPU of its own, with room for" in plan.reasons["generationMemoryBytes"]
    assert 0 < (plan.generation_memory_bytes or 0) < 80 * GIB * GENERATION_GPU_SHARE
    assert engine_plan(**QLORA).generation_engine is GenerationEngine.VLLM
    assert engine_plan(objective="RLOO").generation_engine is GenerationEngine.VLLM


def test_on_the_cpu_the_trainer_generates_unless_the_spec_asks_for_vllm() -> None:
    plan = engine_plan(gpus=0, memory=None)
    assert plan.generation_engine is GenerationEngine.TRAINER
    assert plan.generation_memory_bytes is None
    assert "On the CPU" in plan.reasons["generationEngine"]
    plan = engine_plan("VLLM", gpus=0, memory=None)
    assert plan.generation_engine is GenerationEngine.VLLM
    assert plan.reasons["generationEngine"] == "Set in the spec."
    assert (plan.generation_memory_bytes or 0) > 4 * plan.parameters


def test_the_trainer_generates_where_the_spec_says_so_or_says_nothing() -> None:
    assert engine_plan("Trainer").reasons["generationEngine"] == "Set in the spec."
    plan = plan_of(objective="GRPO", **REWARDS)
    assert plan.generation_engine is None
    assert "generationEngine" not in plan.reasons
    assert {"generationEngine", "generationMemoryBytes"}.isdisjoint(plan.to_dict())


EXPERTS = replace(FACTS, adapted=(*FACTS.adapted, Adapted("experts", 2048, 2048, experts=2048 * 2048)))
SMALL_GPU = {"model": llama("8B"), "memory": 16, **QLORA}
OBSTACLES = [
    pytest.param({"model": EXPERTS}, "spec.method.lora.targetModules", "experts", id="adapters on experts"),
    pytest.param({"model": replace(FACTS, model_type="falcon")}, "spec.generation.engine", "falcon", id="family"),
    pytest.param({"model": replace(FACTS, heads=14), "gpus": 4}, "spec.generation.gpusPerNode", "14", id="heads"),
    pytest.param(SMALL_GPU, "spec.generation.gpusPerNode", "the server needs about", id="memory of a GPU"),
    pytest.param(
        {"topology": gang(processes=2, gpus=2, zeroStage=3, memoryBytes=80 * GIB)["topology"]},
        "spec.",
        "ZeRO-3|zeroStage 3",
        id="ZeRO-3",
    ),
    pytest.param(FULL | {"memory": 141}, "spec.", "adapter", id="no adapter"),
]


@pytest.mark.parametrize(("sections", "field", "words"), OBSTACLES)
def test_what_prevents_the_server_is_refused_where_it_is_asked_for_and_else_a_reason(
    sections: dict[str, Any], field: str, words: str
) -> None:
    error = refusal(**sections)
    assert error.field.startswith(field)
    assert error.hint is not None
    assert "Trainer" in error.hint
    assert any(word in str(error) for word in words.split("|"))
    plan = engine_plan(**sections)
    assert plan.generation_engine is GenerationEngine.TRAINER
    assert plan.generation_memory_bytes is None
    assert any(word in plan.reasons["generationEngine"] for word in words.split("|"))


def test_on_the_cpu_memory_and_cache_are_checked() -> None:
    error = refusal(gpus=0, memory=2)
    assert error.field == "spec.generation.resources.limits.memory"
    enough = error.hint.split("to ")[1].split(" GiB")[0] if error.hint else ""
    assert engine_plan("VLLM", gpus=0, memory=round(float(enough) + 0.5)).generation_engine is GenerationEngine.VLLM
    long = refusal(gpus=0, memory=None, model=replace(FACTS, max_length=10**6), length=100_000)
    assert long.field == "spec.hyperparameters.sequenceLength"


def test_the_remedy_for_heads_is_a_number_that_divides_them() -> None:
    error = refusal(model=replace(FACTS, heads=14), gpus=4)
    assert error.hint is not None
    assert error.hint.startswith("Use 2,")
    assert engine_plan("VLLM", gpus=2, model=replace(FACTS, heads=14)).generation_engine is GenerationEngine.VLLM


def test_an_8b_takes_what_is_published_of_its_parts() -> None:
    terms = AnswerServerTerms(llama("8B"), adapter=84 * 10**6, gpus=1, length=2048)
    assert weights(terms) == pytest.approx(16.4e9, rel=0.02)
    # 8 heads of keys and values with 128 values each, in 32 layers: 128 KiB for each token.
    assert answer(terms) == 2048 * 128 * 2**10
    assert answers_at_once(terms, 80 * GIB) > 150
    two = replace(terms, gpus=2)
    assert weights(two) == weights(terms) // 2
    assert answers_at_once(two, 80 * GIB) > 2 * answers_at_once(terms, 80 * GIB)


def test_what_just_fits_has_room_for_the_least_number_of_answers() -> None:
    terms = AnswerServerTerms(llama("8B"), adapter=84 * 10**6, gpus=1, length=2048)
    limit = int(per_device(terms) / GENERATION_GPU_SHARE) + 1
    assert answers_at_once(terms, limit) == LEAST_ANSWERS


def test_every_objective_that_generates_may_have_it() -> None:
    for objective in (Objective.GRPO, Objective.RLOO):
        assert engine_plan(objective=objective.value).generation_engine is GenerationEngine.VLLM
