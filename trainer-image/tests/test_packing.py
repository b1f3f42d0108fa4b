"""Packing: when it is chosen, that packed rows do not see each other, and that a packed run is the same run."""

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rows import chat_row
from test_plan import FACTS, config_with, gang, summary_of

from hone.contract.plan import Plan
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import MOST_PACKED_TOKENS, Packing, propose
from hone_trainer.planning.plan import make_plan
from hone_trainer.planning.separation import keeps_rows_apart
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB


def spread(rows: int = 2000, shortest: int = 20, longest: int = 200) -> list[int]:
    chance = random.Random(0)
    return [chance.randint(shortest, longest) for _ in range(rows)]


def proposed(lengths: list[int], *, apart: bool = True, **sections: Any) -> Packing:
    return propose(config_with(**sections), FACTS, lengths, lambda: apart)


def test_short_rows_of_many_lengths_are_packed() -> None:
    proposal = proposed(spread())
    # 16 rows of about 110 tokens, in steps of 64.
    assert proposal.length == 1792
    assert proposal.why.endswith("% less compute than padding.")


@pytest.mark.parametrize(
    ("lengths", "sections", "why"),
    [
        pytest.param(spread(400), {}, "Only 75 optimizer steps, fewer than 100.", id="few rows"),
        pytest.param(spread(), {"hyperparameters": {"maxSteps": 99}}, "Only 99 optimizer steps", id="few steps asked"),
        pytest.param([100] * 2000, {}, "It would save 0% of compute", id="rows of one length have no padding"),
        pytest.param([2100] * 2000, {}, "It would save 0% of compute", id="all rows longer than a packed one"),
        pytest.param(spread(), {"hyperparameters": {"packing": False}}, "Set in the spec.", id="not wanted"),
    ],
)
def test_rows_are_left_alone(lengths: list[int], sections: dict[str, Any], why: str) -> None:
    proposal = proposed(lengths, **sections)
    assert proposal.length is None
    assert proposal.why.startswith(why)


def test_what_the_spec_asks_for_is_done_whether_it_saves_or_not() -> None:
    requested = {"hyperparameters": {"packing": True}}
    assert proposed(spread(50), **requested).length is not None
    assert proposed([3000, 10], **requested).length == MOST_PACKED_TOKENS
    assert proposed(spread(), **requested).why == "Set in the spec."


@pytest.mark.slow
def test_one_long_row_does_not_turn_packing_off() -> None:
    gpus = gang(1, 8, 8)
    with_it, without = (proposed([*spread(20_000), *more], **gpus).length for more in ([16_000], []))
    assert with_it is not None
    assert with_it == pytest.approx(without, abs=64)
    # Nor do many, as long as the others are most of the tokens.
    assert proposed([*spread(20_000), *[4000] * 100], **gpus).length
    assert proposed([*spread(20_000), *[4000] * 100]).length, "on a CPU"


@pytest.mark.slow
def test_packed_rows_on_gpus_fill_them() -> None:
    short, gpus = spread(50_000, 30, 120), gang(1, 8, 8)
    proposal = proposed(short, **gpus)
    assert proposal.length == MOST_PACKED_TOKENS * 2
    assert sum(short) / proposal.length / 8 >= 100, "steps"
    # Attention of this model costs 24 % there; a process's share of a step is divided evenly.
    assert 0.95 <= proposed(spread(200_000), **gpus).length / (MOST_PACKED_TOKENS * 2) <= 1
    assert proposed(spread(200_000)).length <= MOST_PACKED_TOKENS, "on a CPU"


def test_the_default_batch_fills_gpus_and_leaves_enough_steps() -> None:
    def plan(rows: int, tokens: int, **sections: Any) -> Plan:
        summary = summary_of(rows).model_copy(update={"tokens": rows * tokens})
        return make_plan(PlanInputs(config_with(**sections), FACTS, summary, 2 * tokens))

    gpus = gang(1, 8, 8)
    filled = plan(200_000, 256, **gpus)
    assert filled.global_batch_size == 8 * 8192 // 256
    assert "8192 tokens a step on each of 8 GPUs" in filled.reasons["globalBatchSize"]
    few = plan(5_000, 256, **gpus)
    assert few.global_batch_size == 128
    assert few.total_steps >= 100
    assert plan(200_000, 256).global_batch_size == 16, "on a CPU"
    assert plan(200_000, 256, **gpus, hyperparameters={"globalBatchSize": 32}).global_batch_size == 32
    assert plan(200_000, 256, objective="Reward", **gpus).global_batch_size == 256


def test_a_filled_share_can_be_divided_into_micro_batches() -> None:
    # 8192 tokens are 89 rows of 92, and 7 pairs of 2 × 550: with these, a micro-batch could only be one row or all.
    for gpus, tokens, objective, share in ((1, 92, "SFT", 88), (8, 1100, "DPO", 6)):
        summary = summary_of(50_000).model_copy(update={"tokens": 50_000 * tokens})
        config = config_with(objective=objective, **gang(1, gpus, gpus))
        plan = make_plan(PlanInputs(config, FACTS, summary, 2 * tokens))
        assert plan.global_batch_size == share * gpus


def test_a_gpu_is_filled_before_activations_are_kept() -> None:
    summary = summary_of(200_000).model_copy(update={"tokens": 200_000 * 256})
    config = config_with(**gang(1, 1, 1, memoryBytes=int(5.5 * GIB)))
    plan = make_plan(PlanInputs(config, FACTS, summary, 256))
    assert plan.gradient_checkpointing
    assert plan.micro_batch_size * 256 >= 2048


def test_a_model_whose_rows_would_see_each_other_is_not_packed() -> None:
    assert "would attend to each other" in proposed(spread(), apart=False).why
    with pytest.raises(BadInput, match="would attend to each other") as error:
        proposed(spread(), apart=False, hyperparameters={"packing": True})
    assert error.value.field == "spec.hyperparameters.packing"


@pytest.mark.parametrize("share", [1, 2, 16, 64, 512])
@pytest.mark.parametrize("world", [1, 4])
def test_a_step_keeps_its_rows(share: int, world: int) -> None:
    lengths = spread(4000)
    hyperparameters = {"globalBatchSize": share * world, "packing": True, "epochs": 50}
    sections = {"hyperparameters": hyperparameters, **gang(1, world)}
    length = proposed(lengths, **sections).length
    assert length is not None
    assert length <= MOST_PACKED_TOKENS
    packed = Packing("", length, round(sum(lengths) / length * 1.01))
    plan = planned(packed, len(lengths), **sections)
    rows = plan.micro_batch_size * plan.gradient_accumulation_steps * world * len(lengths) / packed.rows
    if share >= 2:
        assert rows == pytest.approx(share * world, rel=0.25 if share < 16 else 0.1)
    assert plan.micro_batch_size * length <= MOST_PACKED_TOKENS
    assert plan.total_steps == pytest.approx(50 * len(lengths) / rows, rel=0.05)
    assert plan.global_batch_size == share * world


def planned(packing: Packing, rows: int = 2000, **sections: Any) -> Plan:
    return make_plan(PlanInputs(config_with(**sections), FACTS, summary_of(rows), 200, packing=packing))


def test_a_packed_run_is_planned_in_packed_rows() -> None:
    plan = planned(Packing("why", 1792, 125))
    assert (plan.packing, plan.packed_sequence_length, plan.sequence_length) == (True, 1792, 200)
    assert (plan.micro_batch_size, plan.gradient_accumulation_steps) == (1, 1)
    assert plan.total_steps == 3 * 125
    assert plan.reasons["packing"] == "why"
    assert plan.reasons["packedSequenceLength"] == "16.0 rows in each, 16 a step."
    unpacked = planned(Packing("why not"))
    assert (unpacked.packing, unpacked.packed_sequence_length) == (False, None)


def test_packed_rows_that_would_not_fit_are_not_chosen_unless_asked_for() -> None:
    memory = gang(1, 1, 1, memoryBytes=5 * GIB)
    assert not planned(Packing("why", 1792, 125), **memory).packing
    assert planned(Packing("why", 1792, 125), hyperparameters={"packing": True}, **memory).packing


# A model's kind -> whether its rows stay apart: what the pinned transformers does.
KINDS = {
    "llama": True,
    "qwen2": True,
    "qwen3": True,
    "mistral": True,
    "gemma2": True,
    "gemma3_text": True,
    "phi3": True,
    "gpt2": True,
    "bloom": False,
    "mpt": False,
    "mamba": False,
    "qwen3_next": False,
}


@pytest.mark.train
@pytest.mark.parametrize(("kind", "apart"), KINDS.items(), ids=KINDS)
def test_packed_rows_do_not_see_each_other(kind: str, apart: bool, tmp_path: Path) -> None:
    from transformers import CONFIG_MAPPING

    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)  # the sizes of the real one
    before = torch.get_rng_state()
    assert keeps_rows_apart(tmp_path) == apart
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_that_cannot_be_tried_out_is_not_packed(tmp_path: Path) -> None:
    assert not keeps_rows_apart(tmp_path / "nothing here")


def test_a_model_that_reads_images_is_not_built_to_try_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dev.architectures.families import FAMILIES, config_of
    from hone_trainer.planning import separation

    built: list[object] = []
    monkeypatch.setattr(separation, "build_model", lambda *arguments, **_: built.append(arguments))
    config_of(FAMILIES["Gemma3"]).save_pretrained(tmp_path)
    assert not keeps_rows_apart(tmp_path)
    assert not built


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """A run of the tiny model that prepare has packed."""
    from rows import write_jsonl

    from hone.contract.runconfig import RunConfig
    from hone_trainer.prepare import prepare

    root = tmp_path_factory.mktemp("packed")
    rows = [chat_row(i) for i in range(300)]
    for i, row in enumerate(rows):
        row["messages"][0]["content"] *= 1 + i % 4
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "test", "name": "packed", "uid": "0"},
            "modelName": "tiny",
            "hyperparameters": {"packing": True, "maxSteps": 3},
            "checkpoint": {"everySteps": 1},
            "data": {"train": str(write_jsonl(root / "train.jsonl", rows)), "minSamples": 10},
            "paths": {
                "model": str(tiny_model),
                "workspace": str(root / "workspace"),
                "run": str(root / "run"),
                "output": str(root / "output"),
            },
        }
    )
    return SimpleNamespace(config=config, planned=prepare(config))


@pytest.mark.slow
def test_prepare_packs_each_row_once_and_whole(prepared_run: Any) -> None:
    from hone_trainer.data.pack import FILES, difference, pack
    from hone_trainer.data.prepared import load_prepared

    plan = prepared_run.planned.plan
    alone = load_prepared(prepared_run.planned.prepared).train
    packed = load_prepared(prepared_run.planned.prepared, plan.packed_sequence_length).train
    assert max(len(row["input_ids"]) for row in packed) <= plan.packed_sequence_length
    assert len(packed) < len(alone) / 4
    unpacked: Counter[tuple[Any, ...]] = Counter()
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            part = slice(start, start + length)
            unpacked[(*row["input_ids"][part], *row["labels"][part])] += 1
            start += length
    assert unpacked == Counter((*row["input_ids"], *row["labels"]) for row in alone)
    directory = Path(prepared_run.planned.prepared)
    (directory / f"packed-{plan.packed_sequence_length}").rename(directory / "first")
    again = pack(directory, plan.packed_sequence_length)
    assert again[:] == packed[:], "packed again, they are the same"
    target = directory / f"packed-{plan.packed_sequence_length}"
    for change in (
        lambda: (target / FILES).write_text("[]"),
        lambda: (target / "data-00000-of-00001.arrow").write_bytes(b"other rows"),
        lambda: (target / "dataset_info.json").unlink(),
    ):
        change()
        assert difference(target) is not None
        assert pack(directory, plan.packed_sequence_length)[:] == packed[:], "changed, they are packed again"
    (target / FILES).unlink()
    assert difference(target) is None, "older releases listed no files"
    assert not list(directory.parent.glob(".tmp-*"))


@pytest.mark.parametrize("sizes", [(5, 300, 7, 90), (300, 200)], ids=["some", "all"])
def test_a_row_longer_than_a_packed_one_stays_alone_and_whole(sizes: tuple[int, ...], tmp_path: Path) -> None:
    from datasets import Dataset

    from hone_trainer.data.pack import pack

    rows = [{"input_ids": [size] * size, "labels": [size] * size, "length": size} for size in sizes]
    directory = tmp_path / "prepared"
    Dataset.from_list(rows).save_to_disk(str(directory / "train"))
    packed = pack(directory, 100)
    assert Counter(part for row in packed for part in row["seq_lengths"]) == Counter(sizes)
    for row in packed:
        assert row["input_ids"] == row["labels"]
        assert Counter(row["input_ids"]) == Counter({size: size for size in row["seq_lengths"]})
        assert len(row["input_ids"]) <= 100 or len(row["seq_lengths"]) == 1


@pytest.mark.slow
def test_the_loss_of_packed_rows_is_that_of_the_rows_alone(prepared_run: Any) -> None:
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from hone_trainer.data.prepared import load_prepared

    plan = prepared_run.planned.plan
    packed = load_prepared(prepared_run.planned.prepared, plan.packed_sequence_length).train
    model = AutoModelForCausalLM.from_pretrained(prepared_run.config.paths.model, dtype=torch.float32).eval()
    assert model.config._attn_implementation == "sdpa"
    row = packed[0]
    assert len(row["seq_lengths"]) > 4

    def loss(rows: list[dict[str, Any]], padding_free: bool) -> float:
        batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=padding_free)(rows)
        with torch.no_grad():
            return model(**batch, use_cache=False).loss.item()

    ends = [sum(row["seq_lengths"][: i + 1]) for i in range(len(row["seq_lengths"]))]
    parts = [slice(end - length, end) for end, length in zip(ends, row["seq_lengths"], strict=True)]
    alone = [{name: row[name][part] for name in ("input_ids", "labels")} for part in parts]
    trained = [sum(label != -100 for label in one["labels"][1:]) for one in alone]
    mean = sum(loss([one], False) * count for one, count in zip(alone, trained, strict=True)) / sum(trained)
    assert loss([row], True) == pytest.approx(mean, rel=1e-5)
    seen = {**row, "seq_lengths": [len(row["input_ids"])]}
    assert loss([seen], True) != pytest.approx(mean, rel=1e-4), "as one long row they would see each other"


@pytest.mark.train
def test_a_packed_run_that_is_resumed_equals_an_uninterrupted_one(
    prepared_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_train import largest_difference, stop_after, weights
    from tiny import only_rank

    from hone.contract.runconfig import RunConfig
    from hone_trainer import train
    from hone_trainer.protocol.planfile import PlanFile, save_plan
    from hone_trainer.protocol.runconfig import digest_of
    from hone_trainer.protocol.status import StatusDir
    from hone_trainer.protocol.verdicts import Preempted

    def run(name: str) -> tuple[RunConfig, StatusDir]:
        paths = prepared_run.config.paths.model_copy(update={"run": str(tmp_path / name)})
        config = prepared_run.config.model_copy(update={"paths": paths})
        planned: PlanFile = prepared_run.planned.model_copy(update={"run_config_digest": digest_of(config)})
        save_plan(config, planned)
        (tmp_path / f"{name}.json").write_text(config.to_json())
        (tmp_path / f"{name}-status").mkdir(exist_ok=True)
        monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / f"{name}.json"))
        status = StatusDir(tmp_path / f"{name}-status")
        train._train(0, status)
        return config, status

    with only_rank():
        whole, status = run("whole")
        reported = status.statuses()[0]
        packed = prepared_run.planned.plan.packed_sequence_length
        assert 2 * packed < reported.tokens <= 3 * packed, "a packed row each step, and no padding"
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            with pytest.raises(Preempted, match="at step 1"):
                run("cut")
        (tmp_path / "cut-status/stop").unlink()
        cut, status = run("cut")
        assert status.statuses()[0].resumed_from_step == 1
        assert largest_difference(weights(whole, 3), weights(cut, 3)) == 0.0
        assert largest_difference(weights(whole, 3), weights(whole, 2)) > 0.0
