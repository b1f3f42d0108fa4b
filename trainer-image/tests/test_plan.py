"""The plan: values and reasons, steps as the Trainer counts them, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone.contract.methods import ADAPTER_METHODS
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.rules.finetunejob import either
from hone.contract.runconfig import RunConfig, Topology
from hone.contract.settings import Scheduler
from hone_trainer.data.classes import Classes
from hone_trainer.models.adapters import Adapted
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.saved import Growth, Mode, SavedActivations
from hone_trainer.planning.batches import steps_per_epoch
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import Packing, propose
from hone_trainer.planning.plan import make_plan
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB

# Shapes of a Llama of about 1.1 billion parameters: large enough that memory matters.
HIDDEN, MIDDLE, LAYERS, VOCABULARY = 2048, 8192, 16, 32_000
SHAPES: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
for layer in range(LAYERS):
    SHAPES |= {f"model.layers.{layer}.self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
    SHAPES |= {f"model.layers.{layer}.mlp.{p}_proj.weight": (MIDDLE, HIDDEN) for p in ("gate", "up")}
    SHAPES |= {f"model.layers.{layer}.mlp.down_proj.weight": (HIDDEN, MIDDLE)}
LAYERS_BY_NAME = {name.removesuffix(".weight"): s for name, s in SHAPES.items() if "proj" in name}
FACTS = ModelFacts(
    directory=Path("/mnt/model/big"),
    model_type="llama",
    hidden_size=HIDDEN,
    layers=LAYERS,
    intermediate_size=MIDDLE,
    vocab_size=VOCABULARY,
    max_length=4096,
    shapes=SHAPES,
    quantized=LAYERS_BY_NAME,
    adapted=tuple(Adapted(name, inputs, outputs) for name, (outputs, inputs) in LAYERS_BY_NAME.items()),
)
FULL: dict[str, Any] = {"method": {"type": "Full"}}
QLORA: dict[str, Any] = {"method": {"type": "QLoRA"}}


def config_with(**sections: Any) -> RunConfig:
    base = {
        "job": {"namespace": "n", "name": "j", "uid": "u"},
        "modelName": "big",
        "data": {"train": "/mnt/data/train", "minSamples": 500},
    }
    return RunConfig.from_dict(base | sections)


def summary_of(rows: int) -> DatasetSummary:
    return DatasetSummary(
        digest="sha256:1", format="Messages", train_on="Assistant", train_rows=rows, validation_rows=1, test_rows=1
    )


def plan_of(rows: int = 1000, length: int = 512, **sections: Any) -> Plan:
    return make_plan(PlanInputs(config_with(**sections), FACTS, summary_of(rows), length))


def refusal_of(rows: int = 1000, length: int = 512, **sections: Any) -> BadInput:
    with pytest.raises(BadInput) as error:
        plan_of(rows, length, **sections)
    return error.value


def gang(nodes: int = 1, processes: int = 1, gpus: int = 0, **more: Any) -> dict[str, Any]:
    return {"topology": {"nodes": nodes, "processesPerNode": processes, "gpusPerNode": gpus, **more}}


# A Qwen of about 14 billion parameters: 27 GiB in 16 bits.
WIDE, INNER, KEYS = 5120, 13_824, 1024
LARGE_SHAPES: dict[str, tuple[int, ...]] = (
    {"model.embed_tokens.weight": (152_064, WIDE), "lm_head.weight": (152_064, WIDE)}
    | {f"model.layers.{n}.self_attn.{p}_proj.weight": (WIDE, WIDE) for n in range(48) for p in "qo"}
    | {f"model.layers.{n}.self_attn.{p}_proj.weight": (KEYS, WIDE) for n in range(48) for p in "kv"}
    | {f"model.layers.{n}.mlp.{p}_proj.weight": (INNER, WIDE) for n in range(48) for p in ("gate", "up")}
    | {f"model.layers.{n}.mlp.down_proj.weight": (WIDE, INNER) for n in range(48)}
)
LARGE_LAYERS = {name.removesuffix(".weight"): s for name, s in LARGE_SHAPES.items() if "proj" in name}
LARGE = replace(
    FACTS,
    hidden_size=WIDE,
    intermediate_size=INNER,
    layers=48,
    vocab_size=152_064,
    max_length=32_768,
    shapes=LARGE_SHAPES,
    quantized=LARGE_LAYERS,
    adapted=tuple(Adapted(name, inputs, outputs) for name, (outputs, inputs) in LARGE_LAYERS.items()),
)


def large_plan(gpus: int, memory: int | None = None, length: int = 2048, **sections: Any) -> Plan:
    topology = gang(processes=gpus, gpus=gpus, **({"memoryBytes": memory * GIB} if memory else {}))
    return make_plan(PlanInputs(config_with(**(topology | sections)), LARGE, summary_of(1000), length))


@pytest.mark.parametrize(
    ("case", "gpus", "memory", "sections", "expected"),
    [
        ("LoRA's base fits on one", 8, 80, {}, 1),
        ("QLoRA trains on cards that cannot score alone", 8, 24, QLORA, 2),
        ("all that a pod has", 1, 24, QLORA, 1),
        ("unknown memory, whole models in training", 4, None, {}, 1),
        ("unknown memory, a base in 4 bits", 4, None, QLORA, 4),
    ],
)
def test_as_many_gpus_score_as_hold_the_model(
    case: str, gpus: int, memory: int | None, sections: dict[str, Any], expected: int
) -> None:
    plan = large_plan(gpus, memory, **sections)
    assert plan.scoring_gpus == expected, case
    assert plan.reasons["scoringGpus"]
    if memory and expected < gpus:
        assert plan.scoring_memory_bytes <= memory * GIB < large_plan(1, memory, **sections).scoring_memory_bytes or (
            expected == 1
        )


def test_a_model_that_cannot_be_scored_where_it_is_trained_is_warned_of_before_gpus_are_queued() -> None:
    (warning,) = [text for text in large_plan(1, 24, **QLORA).warnings if "Scoring" in text]
    assert "27.8 GiB" in warning and "which has 24.0 GiB" in warning
    assert "spec.compute.gpusPerNode" in warning and "NotScored" in warning
    assert not [text for text in large_plan(2, 24, **QLORA).warnings if "Scoring" in text]


def test_long_answers_are_part_of_the_estimate() -> None:
    def need(tokens: int) -> int:
        return large_plan(1, 80, evaluation={"maxNewTokens": tokens}).scoring_memory_bytes or 0

    # Keys and values of 48 layers × 2 × 1024 values of 2 bytes for each token, and 10 %.
    assert need(1064) - need(64) == pytest.approx(1.1 * 1000 * 48 * 2 * KEYS * 2, rel=1e-6)


def test_scoring_on_the_cpu_is_warned_of_by_the_pods_memory() -> None:
    small = QLORA | {"topology": {"memoryBytes": 4 * GIB}}
    (warning,) = [text for text in plan_of(**small).warnings if "Scoring" in text]
    assert "spec.compute.resources.limits.memory" in warning
    enough = plan_of(topology={"memoryBytes": 64 * GIB})
    assert (enough.scoring_gpus, [text for text in enough.warnings if "Scoring" in text]) == (None, [])


@pytest.mark.parametrize(
    ("sections", "rows", "expected"),
    [
        pytest.param({}, 1000, {"learning_rate": 2e-4, "epochs": 3, "lora_rank": 32, "lora_alpha": 32}, id="LoRA"),
        pytest.param(FULL, 1000, {"learning_rate": 2e-5, "lora_rank": None, "lora_alpha": None}, id="Full"),
        pytest.param(QLORA, 1000, {"learning_rate": 2e-4, "lora_rank": 32, "lora_dropout": 0.05}, id="QLoRA"),
        pytest.param({}, 9_999, {"epochs": 3, "lora_dropout": 0.05}, id="below 10,000 rows"),
        pytest.param({}, 10_000, {"epochs": 1, "lora_dropout": 0.0}, id="from 10,000 rows"),
        pytest.param({}, 1000, {"scheduler": Scheduler.COSINE, "warmup_ratio": 0.03, "max_grad_norm": 1.0}, id="SFT"),
        pytest.param(
            {"objective": "Reward"},
            1000,
            {"learning_rate": 1e-4, "epochs": 1, "lora_dropout": 0.0, "warmup_ratio": 0.03, "beta": None},
            id="Reward",
        ),
        pytest.param(
            {"objective": "DPO", **FULL}, 1000, {"learning_rate": 1e-6, "warmup_ratio": 0.1, "beta": 0.1}, id="DPO"
        ),
        pytest.param({"objective": "DPO", "hyperparameters": {"beta": 0.5}}, 1000, {"beta": 0.5}, id="a beta"),
        pytest.param({}, 1000, {"global_batch_size": 16, "weight_decay": 0.0, "total_steps": 189}, id="batch"),
        pytest.param({}, 1000, {"checkpoint_every_steps": 18}, id="a tenth of 189 steps"),
        pytest.param({}, 8, {"total_steps": 3, "checkpoint_every_steps": 1}, id="fewer than ten steps"),
        pytest.param({"method": {"lora": {"rank": 8}}}, 1000, {"lora_rank": 8, "lora_alpha": 8}, id="rank alone"),
        pytest.param(gang(3), 1000, {"global_batch_size": 15, "world_size": 3}, id="nearest to 16 for three"),
        pytest.param(gang(4, 8), 1000, {"global_batch_size": 32, "world_size": 32}, id="at least a row for each"),
        pytest.param(
            {"objective": "KTO", **gang(4, 8)}, 1000, {"global_batch_size": 64, "micro_batch_size": 2}, id="two for KTO"
        ),
    ],
)
def test_defaults(sections: dict[str, Any], rows: int, expected: dict[str, Any]) -> None:
    plan = plan_of(rows, **sections)
    assert {name: getattr(plan, name) for name in expected} == expected


EXPERTS = replace(
    FACTS,
    shapes={**SHAPES, "model.layers.0.mlp.experts.gate_up_proj": (8, 2 * MIDDLE, HIDDEN)},
    experts={"model.layers.0.mlp.experts.gate_up_proj": (8, 2 * MIDDLE, HIDDEN)},
    adapted=(*FACTS.adapted, Adapted("model.layers.0.mlp.experts", HIDDEN, 2 * MIDDLE, 16, 8 * 2 * MIDDLE * HIDDEN)),
)
"""A model whose experts have adapters of twice the rank for each of eight experts."""


def plan_with_experts(**lora: Any) -> Plan:
    config = config_with(method={"lora": lora} if lora else {})
    return make_plan(PlanInputs(config, EXPERTS, summary_of(1000), 512))


def test_an_adapter_on_experts_has_no_dropout_and_is_merged() -> None:
    plan = plan_with_experts(rank=8)
    assert (plan.lora_dropout, plan.reasons["loraDropout"]) == (0.0, "PEFT has none for adapters on experts.")
    assert "merged into a whole model" in plan.reasons["method"]
    assert "spec.method.lora.targetModules to [q_proj, k_proj, v_proj, o_proj]" in plan.reasons["method"]
    layers = plan_of(method={"lora": {"rank": 8}}).trainable_parameters
    assert plan.trainable_parameters == layers + 8 * 16 * (HIDDEN + 2 * MIDDLE)
    with pytest.raises(BadInput) as refused:
        plan_with_experts(dropout=0.1)
    assert refused.value.field == "spec.method.lora.dropout" and "Remove it" in refused.value.hint


def test_qlora_is_refused_where_experts_would_stay_in_16_bits() -> None:
    with pytest.raises(BadInput) as refused:
        make_plan(PlanInputs(config_with(**QLORA), EXPERTS, summary_of(1000), 512))
    assert refused.value.field == "spec.method.type" and refused.value.hint == "Use LoRA, or another base model."
    share = 8 * 2 * MIDDLE * HIDDEN / EXPERTS.parameters
    assert f"QLoRA would leave {share:.0%} of the model in 16 bits" in refused.value.message


def test_weights_that_no_text_passes_are_not_trained() -> None:
    tower = {"model.vision_tower.layers.0.k_proj.weight": (100, 100), "model.vision_tower.layers.20.w": (7, 7)}
    facts = replace(FACTS, shapes={**SHAPES, **tower}, unused=frozenset(tower))
    for method in ({"type": "Full"}, {"type": "Full", "freeze": {"layers": 1}}):
        plans = [
            make_plan(PlanInputs(config_with(method=method), each, summary_of(1000), 512)) for each in (FACTS, facts)
        ]
        assert plans[0].trainable_parameters == plans[1].trainable_parameters
        assert plans[1].parameters == plans[0].parameters + 100 * 100 + 7 * 7
    assert facts.cached_values == FACTS.cached_values


def test_what_the_user_sets_wins() -> None:
    hyperparameters = {
        "epochs": 2.5,
        "learningRate": 3e-3,
        "scheduler": "Linear",
        "warmupRatio": 0.2,
        "globalBatchSize": 24,
        "weightDecay": 0.1,
        "maxGradNorm": 0.5,
    }
    plan = plan_of(
        hyperparameters=hyperparameters,
        method={"type": "LoRA", "lora": {"rank": 16, "alpha": 64, "dropout": 0.3}},
        checkpoint={"everySteps": 7},
        **gang(2, 1, 0, zeroStage=2, microBatchSize=3),
    )
    values = plan.to_dict()
    assert {name: values[name] for name in hyperparameters} == hyperparameters
    assert (plan.lora_rank, plan.lora_alpha, plan.lora_dropout) == (16, 64, 0.3)
    assert (plan.zero_stage, plan.micro_batch_size, plan.gradient_accumulation_steps) == (2, 3, 4)
    assert plan.checkpoint_every_steps == 7
    for name in (
        *hyperparameters,
        "loraRank",
        "loraAlpha",
        "loraDropout",
        "zeroStage",
        "microBatchSize",
        "checkpointEverySteps",
    ):
        assert plan.reasons[name] == "Set in the spec.", name


def test_the_default_rank_is_not_said_to_be_set_where_other_settings_of_lora_are() -> None:
    config = config_with(method={"type": "LoRA", "lora": {"alpha": 64}})
    reloaded = RunConfig.from_dict(json.loads(config.to_json()))
    plan = make_plan(PlanInputs(reloaded, FACTS, summary_of(20_000), 512))
    assert (plan.lora_rank, plan.reasons["loraRank"]) == (32, "Default.")


LABELS = Classes(("bad", "good"), (900, 100))
CLASSIFY: dict[str, Any] = {"objective": "Classification"}


@pytest.mark.parametrize(
    ("classes", "sections", "expected"),
    [
        pytest.param(LABELS, {}, {"learning_rate": 2e-4, "balance": "Weight"}, id="LoRA, 9 : 1"),
        pytest.param(LABELS, FULL, {"learning_rate": 2e-5}, id="Full"),
        pytest.param(LABELS, {}, {"scheduler": Scheduler.LINEAR, "warmup_ratio": 0.06, "epochs": 3}, id="schedule"),
        pytest.param(LABELS, {"data": {"train": "x", "balance": "None"}}, {"balance": "None"}, id="asked"),
        pytest.param(replace(LABELS, rows=(300, 100)), {}, {"balance": "None"}, id="3 : 1 is even enough"),
    ],
)
def test_defaults_of_classification(classes: Classes, sections: dict[str, Any], expected: dict[str, Any]) -> None:
    config = config_with(**CLASSIFY, **sections)
    plan = make_plan(PlanInputs(config, FACTS, summary_of(20_000), 512, classes))
    assert {name: getattr(plan, name) for name in expected} == expected
    assert set(plan.reasons) >= {"balance", "learningRate", "epochs", "scheduler", "warmupRatio"}


def test_a_plan_that_gives_up_packing_still_has_its_classes() -> None:
    config = config_with(**CLASSIFY, **gang(gpus=1, memoryBytes=5 * GIB))
    plan = make_plan(PlanInputs(config, FACTS, summary_of(2000), 200, LABELS, packing=Packing("why", 1792, 125)))
    assert (plan.packing, plan.balance) == (False, "Weight")


def test_a_head_for_classes_takes_the_place_of_the_one_for_tokens() -> None:
    facts = replace(FACTS, shapes={**SHAPES, "lm_head.weight": (VOCABULARY, HIDDEN)})
    config = config_with(**CLASSIFY)
    plan = make_plan(PlanInputs(config, facts, summary_of(1000), 512, LABELS))
    assert plan.parameters == FACTS.parameters + 2 * HIDDEN
    assert plan.trainable_parameters == plan_of().trainable_parameters + 2 * HIDDEN
    assert plan.memory.activations_bytes < plan_of().memory.activations_bytes
    assert "merged into a whole model" in plan.reasons["method"]


# A layer's weights: four matrices of attention, three of the MLP.
LAYER = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * MIDDLE


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        pytest.param({"layers": 4}, 4 * LAYER, id="layers"),
        pytest.param({"embeddings": True}, VOCABULARY * HIDDEN, id="embeddings"),
        pytest.param({"layers": 15, "embeddings": True}, 15 * LAYER + VOCABULARY * HIDDEN, id="both"),
    ],
)
def test_frozen_weights_take_neither_gradients_nor_moments(freeze: dict[str, Any], frozen: int) -> None:
    whole, plan = plan_of(**FULL), plan_of(method={"type": "Full", "freeze": freeze})
    assert plan.trainable_parameters == whole.parameters - frozen
    assert plan.memory.weights_bytes == whole.memory.weights_bytes
    assert whole.memory.gradients_bytes - plan.memory.gradients_bytes == 4 * frozen
    assert whole.memory.optimizer_bytes - plan.memory.optimizer_bytes == 8 * frozen
    assert whole.checkpoint_bytes - plan.checkpoint_bytes == 8 * frozen
    assert "spec.method.freeze" in plan.reasons["trainableParameters"]


def test_a_head_that_is_frozen_with_the_embeddings_is_warned_of() -> None:
    config = config_with(method={"type": "Full", "freeze": {"embeddings": True}})
    plans = {
        tied: make_plan(PlanInputs(config, replace(FACTS, tied=tied), summary_of(1000), 512)) for tied in (False, True)
    }
    assert any("freezes both" in warning for warning in plans[True].warnings)
    assert not any("freezes both" in warning for warning in plans[False].warnings)


@pytest.mark.parametrize(
    ("method", "field", "message"),
    [
        ({"type": "Full", "freeze": {"layers": 16}}, "spec.method.freeze.layers", "the model has 16"),
        ({"type": "LoRA", "freeze": {"layers": 1}}, "spec.method.freeze", "only with type Full"),
        ({"type": "QLoRA", "freeze": {"layers": 1}}, "spec.method.freeze", "only with type Full"),
    ],
)
def test_what_cannot_be_frozen_is_refused(method: dict[str, Any], field: str, message: str) -> None:
    error = refusal_of(method=method)
    assert error.field == field
    assert message in error.message


def test_checkpoints_may_be_counted_in_minutes() -> None:
    plan = plan_of(checkpoint={"everyMinutes": 30})
    assert (plan.checkpoint_every_steps, plan.checkpoint_every_minutes) == (None, 30)
    assert plan.reasons["checkpointEveryMinutes"] == "Set in the spec."
    assert "checkpointEverySteps" not in plan.reasons


def test_evaluations_need_validation_rows() -> None:
    plan = plan_of(1000)
    assert (plan.evaluation_every_steps, plan.reasons["evaluationEverySteps"]) == (18, "Steps / 10.")
    none = summary_of(1000).model_copy(update={"validation_rows": 0})
    plan = make_plan(PlanInputs(config_with(), FACTS, none, 512))
    assert (plan.evaluation_every_steps, plan.reasons["evaluationEverySteps"]) == (None, "No validation rows.")


@pytest.mark.parametrize(
    ("select", "validation_rows", "planned", "why"),
    [
        (None, 9, "Best", "Lowest loss on the validation rows."),
        (None, 0, "Last", "Nothing is evaluated during training."),
        ("Last", 9, "Last", "Set in the spec."),
    ],
)
def test_the_best_checkpoint_is_exported_where_validation_rows_tell_it(
    select: str | None, validation_rows: int, planned: str, why: str
) -> None:
    rows = summary_of(1000).model_copy(update={"validation_rows": validation_rows})
    plan = make_plan(PlanInputs(config_with(checkpoint={"select": select}), FACTS, rows, 512))
    assert (plan.checkpoint_select, plan.reasons["checkpointSelect"]) == (planned, why)


@pytest.mark.parametrize(
    ("field", "sections"),
    [
        ("spec.checkpoint.select", {"checkpoint": {"select": "Best"}}),
        ("spec.evaluation.earlyStopping", {"evaluation": {"earlyStopping": {"patience": 3}}}),
    ],
)
def test_what_needs_validation_rows_is_refused_without(field: str, sections: dict[str, Any]) -> None:
    none = summary_of(1000).model_copy(update={"validation_rows": 0})
    with pytest.raises(BadInput, match="no loss on validation rows") as refused:
        make_plan(PlanInputs(config_with(**sections), FACTS, none, 512))
    assert refused.value.field == field


def test_max_steps_replace_epochs() -> None:
    plan = plan_of(1600, hyperparameters={"maxSteps": 250})
    assert plan.total_steps == 250
    assert plan.epochs == 2.5


def test_every_value_has_a_reason() -> None:
    plan = plan_of()
    described = {"objective", "method", "worldSize", "parameters", "trainableParameters", "checkpointBytes"}
    decided = set(plan.to_dict()) - described - {"memory", "reasons", "warnings"}
    assert decided <= set(plan.reasons)


@pytest.mark.parametrize(
    ("topology", "probe", "why"),
    [
        ({"gpus": 1}, True, "GPUs"),
        ({}, False, "No memory limit"),
        ({"memoryBytes": 1000 * GIB}, False, "% of a process"),
        ({"memoryBytes": 32 * GIB}, True, "% of a process"),
    ],
)
def test_steps_are_probed_on_gpus_and_where_memory_is_short(topology: dict[str, Any], probe: bool, why: str) -> None:
    plan = plan_of(**gang(**topology), **FULL)
    assert plan.probe is probe
    assert why in plan.reasons["probe"]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(("rows", "micro", "accumulation"), [(1, 1, 1), (247, 4, 2), (256, 16, 1), (33, 8, 3)])
def test_steps_are_counted_as_the_trainer_counts_them(world: int, rows: int, micro: int, accumulation: int) -> None:
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import Trainer

    batches = BatchSampler(SequentialSampler(range(rows)), batch_size=micro, drop_last=False)
    shard = BatchSamplerShard(batches, num_processes=world, process_index=0, even_batches=True)
    args = SimpleNamespace(max_steps=-1, num_train_epochs=2.5, gradient_accumulation_steps=accumulation)
    trainer = SimpleNamespace(
        get_total_train_batch_size=lambda _: 0, get_sp_size=lambda: 1, num_examples=lambda _: rows
    )
    counted = Trainer.set_initial_training_values(trainer, args, shard)
    per_epoch, max_steps = counted[1], counted[-1]
    assert steps_per_epoch(rows, micro, world, accumulation) == per_epoch
    assert math.ceil(2.5 * steps_per_epoch(rows, micro, world, accumulation)) == max_steps


@pytest.mark.parametrize("world", [1, 2, 4, 5])
@pytest.mark.parametrize("batch", [20, 40, 60])
@pytest.mark.parametrize("memory", [None, 8 * GIB, 80 * GIB])
def test_the_global_batch_is_exact(world: int, batch: int, memory: int | None) -> None:
    plan = plan_of(hyperparameters={"globalBatchSize": batch}, **gang(world, 1, 1, memoryBytes=memory))
    assert plan.micro_batch_size * plan.gradient_accumulation_steps * world == plan.global_batch_size == batch


def test_rows_are_divided_among_the_ranks_that_train_on_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan_of(hyperparameters={"globalBatchSize": 24}, **gang(2))
    monkeypatch.setattr(Topology, "data_parallel_size", property(lambda topology: topology.world_size // 2))
    plan = plan_of(hyperparameters={"globalBatchSize": 24}, **gang(4))
    assert plan.world_size == 4
    assert plan.micro_batch_size * plan.gradient_accumulation_steps * 2 == 24
    assert plan.total_steps == alone.total_steps
    assert plan_of(**gang(6)).global_batch_size == 15
    lengths, packed = [20, 200] * 1000, {"hyperparameters": {"packing": True}}
    assert propose(config_with(**packed, **gang(8)), FACTS, lengths, lambda: True).length == 448, "4 rows of about 110"


@pytest.mark.parametrize(
    ("sections", "field", "message", "hint"),
    [
        pytest.param(
            {"hyperparameters": {"globalBatchSize": 16}, **gang(3)},
            "spec.hyperparameters.globalBatchSize",
            "16 rows cannot be divided among 3 processes",
            "Use 15 or 18.",
            id="a batch that the processes cannot share",
        ),
        pytest.param(
            {"hyperparameters": {"globalBatchSize": 2}, **gang(4)},
            "spec.hyperparameters.globalBatchSize",
            "among 4 processes",
            "Use 4.",
            id="a batch with less than a row for each",
        ),
        pytest.param(
            {"hyperparameters": {"globalBatchSize": 24}, **gang(2, microBatchSize=5)},
            "spec.compute.microBatchSize",
            "5 does not divide the 12 rows",
            "Use one of 1, 2, 3, 4, 6, 12",
            id="a micro-batch that does not divide",
        ),
        pytest.param(
            {"method": {"type": "Full", "lora": {"rank": 8}}},
            "spec.method.lora",
            f"only with type {either(ADAPTER_METHODS)}",
            f"set type to {either(ADAPTER_METHODS)}",
            id="LoRA's settings with Full",
        ),
        pytest.param(
            {"hyperparameters": {"epochs": 1, "maxSteps": 5}},
            "spec.hyperparameters.maxSteps",
            "together with epochs",
            "Remove one",
            id="epochs and steps",
        ),
        pytest.param(
            {"checkpoint": {"everySteps": 5, "everyMinutes": 5}},
            "spec.checkpoint.everyMinutes",
            "together with everySteps",
            "Remove one",
            id="checkpoints by steps and by minutes",
        ),
        pytest.param(gang(zeroStage=1), "spec.compute.zeroStage", "must be 0, 2 or 3", "Use 0, 2 or 3", id="ZeRO-1"),
        pytest.param(
            {**QLORA, **gang(2, zeroStage=3)},
            "spec.compute.zeroStage",
            "must be 0 or 2 with method QLoRA: transformers 5.23 loads all quantized weights in each process",
            "Use 0 or 2, or set spec.method.type to LoRA.",
            id="QLoRA under ZeRO-3",
        ),
        pytest.param(
            {"data": {"train": "x", "validationFraction": 0.5, "testFraction": 0.5}},
            "spec.dataset.validation.fraction",
            "no rows",
            "Lower",
            id="nothing left to train on",
        ),
        pytest.param(
            {"data": {"train": "x", "testFraction": 0}},
            "spec.dataset.test.fraction",
            "must be above 0: base and tuned model",
            "Set it above 0",
            id="nothing to compare on",
        ),
        pytest.param(
            {"data": {"train": "x", "minSamples": 2000, "onScarceData": "Fail"}},
            "spec.dataset.minSamples",
            "1000 training rows are left after validation and test are held out, but minSamples is 2000",
            "onScarceData to Warn",
            id="too little data",
        ),
    ],
)
def test_refused(sections: dict[str, Any], field: str, message: str, hint: str) -> None:
    error = refusal_of(**sections)
    assert error.field == field
    assert message in error.message
    assert hint in (error.hint or "")


def test_too_little_data_is_warned_of_where_that_is_asked() -> None:
    plan = plan_of(40, data={"train": "x", "minSamples": 500, "onScarceData": "Warn"})
    assert any(w.startswith("Little data: 40 training rows") and "minSamples is 500" in w for w in plan.warnings)
    assert any("What may still work: a format or a tone, learned by LoRA of a low rank" in w for w in plan.warnings)
    assert not any("Little data" in w for w in plan_of(500).warnings)


def test_very_few_steps_are_warned_of() -> None:
    assert any("Only 3 optimizer steps" in w for w in plan_of(8).warnings)


@pytest.mark.parametrize(
    ("sections", "stage", "precision"),
    [
        pytest.param({}, 0, "float32", id="LoRA on the CPU"),
        pytest.param(QLORA, 0, "float32", id="QLoRA on the CPU"),
        pytest.param(
            {**QLORA, **gang(4, gpus=1, memoryBytes=3 * GIB)}, 2, "bfloat16", id="QLoRA goes to ZeRO-2 at most"
        ),
        pytest.param(gang(gpus=1), 0, "bfloat16", id="LoRA on a GPU"),
        pytest.param({**FULL, **gang(gpus=1)}, 0, "float32", id="Full on one GPU"),
        pytest.param({**FULL, **gang(2, gpus=1)}, 2, "bfloat16", id="Full on two GPUs of unknown memory"),
        pytest.param({**FULL, **gang(2)}, 2, "float32", id="Full on two CPU processes of unknown memory"),
        pytest.param({**FULL, **gang(2, gpus=1, memoryBytes=80 * GIB)}, 0, "float32", id="Full where DDP fits"),
        pytest.param({**FULL, **gang(4, gpus=1, memoryBytes=16 * GIB)}, 2, "bfloat16", id="Full where only ZeRO fits"),
        pytest.param({**FULL, **gang(2, gpus=1, zeroStage=0)}, 0, "float32", id="Full with DDP asked for"),
        pytest.param(gang(4, gpus=1), 0, "bfloat16", id="LoRA on four GPUs"),
    ],
)
def test_zero_stage_and_precision(sections: dict[str, Any], stage: int, precision: str) -> None:
    plan = plan_of(**sections)
    assert (plan.zero_stage, plan.precision) == (stage, precision)


def test_less_memory_means_smaller_micro_batches_then_checkpointing() -> None:
    plans = [plan_of(length=2048, **gang(gpus=1, memoryBytes=m * GIB)) for m in (80, 24, 12, 8)]
    assert [plan.micro_batch_size for plan in plans[:3]] == [4, 2, 1], "8192 tokens at once are enough"
    assert [plan.gradient_checkpointing for plan in plans] == [False, False, False, True]
    for plan in plans:
        assert plan.memory.limit_bytes is not None
        assert plan.memory.total_bytes <= plan.memory.limit_bytes


def test_the_next_larger_micro_batch_would_not_fit() -> None:
    limit = 24 * GIB
    plan = plan_of(length=2048, **gang(gpus=1, memoryBytes=limit))
    larger = plan_of(length=2048, **gang(gpus=1, memoryBytes=limit, microBatchSize=2 * plan.micro_batch_size))
    assert not plan.gradient_checkpointing
    assert larger.gradient_checkpointing or larger.memory.total_bytes > limit


def test_a_model_that_cannot_fit_is_refused_with_the_estimate_and_what_helps() -> None:
    error = refusal_of(**FULL, **gang(gpus=1, memoryBytes=8 * GIB, hostMemoryBytes=24 * GIB))
    assert error.field == "spec.compute"
    assert f"{FACTS.parameters:,} parameters is too large: each process needs about " in error.message
    assert "but has 8.0 GiB" in error.message
    assert "spec.method.type LoRA" in (error.hint or "")
    assert "spec.compute.resources.limits.memory of " in (error.hint or ""), "with which it would fit"


def test_a_batch_that_may_not_fit_is_only_warned_of() -> None:
    plan = plan_of(length=4096, **gang(gpus=1, memoryBytes=4 * GIB))
    assert any("may run out of memory" in w and "sequenceLength" in w for w in plan.warnings)
    assert (plan.micro_batch_size, plan.gradient_checkpointing) == (1, True)


def test_unknown_gpu_memory_is_said() -> None:
    assert any("spec.compute.gpuMemory" in w for w in plan_of(**gang(gpus=1)).warnings)
    assert not any("gpuMemory" in w for w in plan_of(**gang()).warnings)


# Pairs and ratings.


def rated_plan(good: int, bad: int, **sections: Any) -> Plan:
    config = config_with(objective="KTO", **sections)
    return make_plan(PlanInputs(config, FACTS, summary_of(good + bad), 128, Classes(("false", "true"), (bad, good))))


def test_a_reward_model_has_a_head_of_one_output_instead_of_that_for_tokens() -> None:
    plan = plan_of(objective="Reward", **FULL)
    assert plan.parameters == FACTS.parameters + HIDDEN
    assert plan.trainable_parameters == plan.parameters


def test_both_answers_of_a_pair_count_in_the_estimate() -> None:
    plain = {"method": {"lora": {"dropout": 0.0}}}
    pairs, singles = (
        plan_of(objective=objective, topology={"microBatchSize": micro}, **plain).memory
        for objective, micro in (("DPO", 4), ("SFT", 8))
    )
    assert pairs.activations_bytes == singles.activations_bytes


@pytest.mark.parametrize(
    ("good", "bad", "balance", "reason"),
    [
        (500, 500, "None", "500 good to 500 bad rows: ratio in 1 to 4/3."),
        (600, 450, "None", "ratio in 1 to 4/3."),
        (300, 600, "Weight", "ratio not in 1 to 4/3: good ones weigh 2."),
        (800, 300, "Weight", "ratio not in 1 to 4/3: bad ones weigh 2."),
    ],
)
def test_ratings_of_unequal_number_are_weighed(good: int, bad: int, balance: str, reason: str) -> None:
    plan = rated_plan(good, bad)
    assert plan.balance == balance
    assert reason in plan.reasons["balance"]
    assert rated_plan(good, bad, data={"train": "/d", "balance": "None"}).balance == "None"


def test_kto_has_two_rows_in_a_forward_pass_at_least() -> None:
    tight = {"topology": {"memoryBytes": 8 * GIB, "gpusPerNode": 0}}
    assert rated_plan(500, 500, **tight).micro_batch_size >= 2
    with pytest.raises(BadInput, match="is too small") as error:
        rated_plan(500, 500, topology={"microBatchSize": 1})
    assert error.value.field == "spec.compute.microBatchSize"
    with pytest.raises(BadInput, match="gives each process 1 row") as error:
        rated_plan(500, 500, topology={"processesPerNode": 4}, hyperparameters={"globalBatchSize": 4})
    assert error.value.field == "spec.hyperparameters.globalBatchSize"


def test_what_autograd_saves_of_the_model_itself_decides_where_memory_may_be_short() -> None:
    modes: list[Mode] = []

    def unfused(mode: Mode) -> SavedActivations:
        """Attention that saves all pairs of tokens, 24 GiB for a row of 2048."""
        modes.append(mode)
        layer = Growth(0, 100_000, 400)
        return SavedActivations(Growth(0, 16 * 100_000, 16 * 400), layer, Growth(0, 65_536, 0), layer)

    def plan(memory: int) -> Plan:
        config = config_with(**gang(gpus=1, memoryBytes=memory * GIB))
        return make_plan(PlanInputs(config, FACTS, summary_of(1000), 2048, measure=unfused))

    tight = plan(24)
    assert tight.gradient_checkpointing
    assert {(mode.rank, mode.precision, mode.autocast) for mode in modes} == {(32, "bfloat16", False)}
    # Several rows are padded, and one is not.
    assert {mode.masked for mode in modes} == {True, False}
    modes.clear()
    assert not plan(4000).gradient_checkpointing
    assert not modes
