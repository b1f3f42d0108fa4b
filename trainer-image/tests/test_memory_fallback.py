"""The memory fallback: its levels by plan and topology, and which one an attempt runs at."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from hone.contract.plan import Plan
from hone.contract.results import StepResult
from hone.contract.runconfig import Attempt, RunConfig, Topology
from hone.contract.settings import GenerationEngine, Optimizer
from hone_trainer.planning import memory_fallback
from hone_trainer.planning.memory_fallback import ReachedLevel
from hone_trainer.protocol.planfile import load_plan
from hone_trainer.protocol.probe import load_probe, save_probe
from hone_trainer.protocol.runconfig import load_attempt


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose plan the tests change."""
    root = tmp_path_factory.mktemp("run")
    (root / "model").mkdir()
    return tiny.make_run(root)


def make(config: RunConfig, *, micro: int = 8, accumulation: int = 2, ranks: int = 1, **changes: Any) -> Plan:
    """The run's plan with other figures."""
    return load_plan(config).plan.model_copy(
        update={
            "micro_batch_size": micro,
            "gradient_accumulation_steps": accumulation,
            "world_size": ranks,
            "global_batch_size": micro * accumulation * ranks,
            **changes,
        }
    )


def topology(*, gpus: int = 0, ranks: int = 1, **more: Any) -> Topology:
    """A pod of so many ranks."""
    return Topology(processes_per_node=ranks, gpus_per_node=gpus, **more)


HALVINGS = [
    "microBatchSize 8 → 4, gradientAccumulationSteps 2 → 4",
    "microBatchSize 4 → 2, gradientAccumulationSteps 4 → 8",
    "microBatchSize 2 → 1, gradientAccumulationSteps 8 → 16",
]


@pytest.mark.parametrize(
    ("plan", "place", "expected"),
    [
        pytest.param({}, {}, [*HALVINGS, "gradientCheckpointing on"], id="one rank on the CPU"),
        pytest.param(
            {}, {"gpus": 1}, [*HALVINGS, "gradientCheckpointing on", "activationOffloading on"], id="one on a GPU"
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "precision": "bfloat16"},
            {"ranks": 2, "gpus": 2},
            ["gradientCheckpointing on", "activationOffloading on", "zeroStage 0 → 2", "zeroStage 2 → 3"],
            id="several: the next ZeRO stage comes last",
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "method": "Full", "precision": "float32"},
            {"ranks": 2, "gpus": 2},
            [
                "gradientCheckpointing on",
                "activationOffloading on",
                "zeroStage 0 → 2, precision float32 → bfloat16",
                "zeroStage 2 → 3",
                "offloadOptimizer on",
                "offloadParam on",
            ],
            id="Full on GPUs: the stage takes its precision along, and host memory comes last",
        ),
        pytest.param(
            {"micro": 1, "method": "Full", "precision": "float32", "optim": Optimizer.ADAMW_8BIT},
            {"gpus": 1},
            [
                "gradientCheckpointing on",
                "activationOffloading on",
                "zeroStage 0 → 3, precision float32 → bfloat16, offloadOptimizer on, "
                "optim adamw_bnb_8bit → adamw_torch_fused",
                "offloadParam on",
            ],
            id="Full on one GPU: ZeRO for the sake of host memory",
        ),
        pytest.param(
            {"micro": 1, "method": "Full", "trainable_parameters": 7 * 10**9},
            {"gpus": 1},
            ["gradientCheckpointing on", "activationOffloading on"],
            id="what the pod's host memory does not hold is left out",
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "method": "Full", "optim": Optimizer.ADAMW_8BIT},
            {"ranks": 2, "gpus": 2, "offload_optimizer": False, "offload_param": False},
            [
                "gradientCheckpointing on",
                "activationOffloading on",
                "zeroStage 0 → 2, precision float32 → bfloat16, optim adamw_bnb_8bit → adamw_torch_fused",
                "zeroStage 2 → 3",
            ],
            id="ZeRO has moments of 32 bits; the spec forbids to offload them",
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "method": "QLoRA"},
            {"ranks": 2},
            ["gradientCheckpointing on", "zeroStage 0 → 2"],
            id="QLoRA: no stage that it does not go with",
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "precision": "bfloat16", "generation_engine": GenerationEngine.VLLM},
            {"ranks": 2, "gpus": 2},
            ["gradientCheckpointing on", "activationOffloading on", "zeroStage 0 → 2"],
            id="a server that generates answers needs the adapter whole, which ZeRO-3 spreads",
        ),
        pytest.param(
            {"micro": 1, "ranks": 2, "zero_stage": 3}, {"ranks": 2}, ["gradientCheckpointing on"], id="no stage left"
        ),
        pytest.param(
            {"micro": 1, "ranks": 2},
            {"ranks": 2, "zero_stage": 0},
            ["gradientCheckpointing on"],
            id="the spec names the stage",
        ),
        pytest.param({"micro": 1, "gradient_checkpointing": True}, {}, [], id="nothing left from the start"),
        pytest.param(
            {"micro": 9, "accumulation": 1, "gradient_checkpointing": True},
            {},
            [
                "microBatchSize 9 → 3, gradientAccumulationSteps 1 → 3",
                "microBatchSize 3 → 1, gradientAccumulationSteps 3 → 9",
            ],
            id="what has no half goes to its largest divisor",
        ),
    ],
)
def test_levels(config: RunConfig, plan: dict[str, Any], place: dict[str, Any], expected: list[str]) -> None:
    levels = memory_fallback.fallback_levels(make(config, **plan), topology(**place))
    assert [level.change for level in levels] == ["", *expected]


def test_no_level_leaves_fewer_rows_at_once_than_the_objective_needs(config: RunConfig) -> None:
    plan = make(config, micro=12).model_copy(update={"objective": "KTO"})
    assert {level.plan.micro_batch_size for level in memory_fallback.fallback_levels(plan, topology())} == {12, 6, 3}
    plan = make(config, micro=8).model_copy(update={"objective": "KTO"})
    assert {level.plan.micro_batch_size for level in memory_fallback.fallback_levels(plan, topology())} == {8, 4, 2}


@pytest.mark.parametrize("micro", [1, 5, 6, 7, 12, 64, 100])
def test_every_level_trains_on_the_same_rows_per_step(config: RunConfig, micro: int) -> None:
    plan = make(config, micro=micro, accumulation=3, ranks=2)
    for level in memory_fallback.fallback_levels(plan, topology(gpus=2, ranks=2)):
        now = level.plan
        assert now.micro_batch_size * now.gradient_accumulation_steps * now.world_size == plan.global_batch_size
        assert (now.total_steps, now.learning_rate) == (plan.total_steps, plan.learning_rate)


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        pytest.param(None, 1, id="unknown: the next one"),
        pytest.param(60, 1, id="half of the activations fit"),
        pytest.param(52, 3, id="no micro-batch fits"),
        pytest.param(30, 5, id="the state needs another ZeRO stage"),
    ],
)
def test_levels_that_a_gpu_cannot_hold_are_left_out(config: RunConfig, gib: int | None, expected: int) -> None:
    plan = make(config, micro=4, ranks=2)
    estimate = {"weights_bytes": 30, "gradients_bytes": 5, "optimizer_bytes": 10, "activations_bytes": 30}
    memory = plan.memory.model_copy(update={name: value * 2**30 for name, value in estimate.items()})
    levels = memory_fallback.fallback_levels(plan.model_copy(update={"memory": memory}), topology(gpus=2, ranks=2))
    total = gib and gib * 2**30
    assert memory_fallback.next_level(levels, 0, None, memory=total) == expected
    assert memory_fallback.next_level(levels, 0, None, memory=1) == 5, "where nothing else may fit, the rest is tried"
    assert memory_fallback.next_level(levels[:3], 0, None, memory=1) == 1


# Levels of four ranks on GPUs with micro-batch 2: 0 plan, 1 micro-batch 1, 2 checkpointing, 3 offloading, 4 ZeRO-2,
# 5 ZeRO-3.
@pytest.mark.parametrize(
    ("counted", "remembered", "checkpoint_stage", "expected"),
    [
        pytest.param(0, 0, None, 0, id="the plan itself"),
        pytest.param(2, 0, None, 2, id="what the operator counted"),
        pytest.param(1, 3, None, 3, id="what was remembered in place, being further down"),
        pytest.param(99, 0, None, 5, id="no further than the last"),
        pytest.param(4, 0, 0, 3, id="a checkpoint of plain DDP keeps its stage"),
        pytest.param(0, 0, 2, 4, id="so does one of ZeRO-2, though nothing is remembered"),
        pytest.param(2, 0, 1, 2, id="a stage that no level has is for the ranks to refuse"),
    ],
)
def test_an_attempts_level(
    config: RunConfig, counted: int, remembered: int, checkpoint_stage: int | None, expected: int
) -> None:
    levels = memory_fallback.fallback_levels(make(config, micro=2, ranks=4), topology(gpus=4, ranks=4))
    attempt = Attempt(number=5, memory_fallback_level=counted)
    assert memory_fallback.level_of(levels, attempt, ReachedLevel(level=remembered), checkpoint_stage) == expected


@pytest.mark.parametrize(
    ("level", "checkpoint_stage", "expected"),
    [(0, None, 1), (0, 0, 1), (3, None, 4), (3, 0, None), (4, None, 5), (4, 2, None), (5, None, None)],
)
def test_the_level_below(config: RunConfig, level: int, checkpoint_stage: int | None, expected: int | None) -> None:
    levels = memory_fallback.fallback_levels(make(config, micro=2, ranks=4), topology(gpus=4, ranks=4))
    assert memory_fallback.next_level(levels, level, checkpoint_stage) == expected


def test_an_attempts_plan_and_what_is_told_of_it(config: RunConfig) -> None:
    plan, place = make(config, learning_rate=2e-4), topology()
    attempt = Attempt(number=3, memory_fallback_level=2, learning_rate_factor=0.5)
    adjusted = memory_fallback.plan_of_attempt(plan, place, attempt)
    assert (adjusted.micro_batch_size, adjusted.gradient_accumulation_steps) == (2, 8)
    assert math.isclose(adjusted.learning_rate, 1e-4)
    remembered = ReachedLevel(level=1, changes=[f"{HALVINGS[0]}: out of memory at step 12"])
    assert memory_fallback.changes_of_attempt(
        plan, memory_fallback.fallback_levels(plan, place), attempt, remembered
    ) == [
        "microBatchSize 8 → 4, gradientAccumulationSteps 2 → 4: out of memory at step 12",
        "microBatchSize 4 → 2, gradientAccumulationSteps 4 → 8: out of memory in an earlier attempt",
        "learningRate 0.0002 → 0.0001: an earlier attempt diverged",
    ]
    assert memory_fallback.plan_of_attempt(plan, place, Attempt(number=1)) == plan


def test_no_more_is_told_than_the_contract_takes(config: RunConfig) -> None:
    plan = make(config, micro=4096, accumulation=1)
    levels = memory_fallback.fallback_levels(plan, topology())
    changes = memory_fallback.changes_of_attempt(
        plan, levels, Attempt(number=1, memory_fallback_level=12), ReachedLevel()
    )
    assert len(changes) == memory_fallback.MAX_CHANGES
    assert "microBatchSize 2 → 1" in changes[-1], "the last ones say where the run stands"


def test_a_level_is_remembered_for_its_run_config_alone(config: RunConfig) -> None:
    memory_fallback.save_level(config, 2, HALVINGS[:2])
    assert (memory_fallback.load_level(config).level, memory_fallback.load_level(config).changes) == (2, HALVINGS[:2])
    edited = config.model_copy(update={"model_name": "another"})
    assert memory_fallback.load_level(edited).level == 0
    (Path(config.paths.run) / memory_fallback.LEVEL_FILE).write_text('{"rung": 2')
    assert memory_fallback.load_level(config).level == 0


def test_files_name_the_level_as_earlier_releases_do(config: RunConfig) -> None:
    memory_fallback.save_level(config, 1, HALVINGS[:1])
    assert json.loads((Path(config.paths.run) / "memory-rung.json").read_text())["rung"] == 1
    save_probe(config, level=1, peak_bytes=1, seconds_per_step=1.0)
    assert json.loads((Path(config.paths.run) / "probe.json").read_text())["rung"] == 1
    assert load_probe(config, level=1) is not None


def test_the_attempt_is_the_operators_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_ATTEMPT", raising=False)
    assert load_attempt() == Attempt(number=1)
    monkeypatch.setenv("HONE_ATTEMPT", '{"number": 3, "memoryRung": 1, "learningRateFactor": 0.5}')
    assert load_attempt() == Attempt(number=3, memory_fallback_level=1, learning_rate_factor=0.5)
    monkeypatch.setenv("HONE_ATTEMPT", "three")
    with pytest.raises(Exception, match="HONE_ATTEMPT"):
        load_attempt()


def test_a_change_is_no_longer_than_the_contract_takes(config: RunConfig) -> None:
    remembered = ReachedLevel(level=1, changes=["x" * 1000])
    plan, place = make(config), topology()
    (change,) = memory_fallback.changes_of_attempt(
        plan, memory_fallback.fallback_levels(plan, place), Attempt(number=2, memory_fallback_level=1), remembered
    )
    assert StepResult(step="train", changes=[change]).changes == [change]
