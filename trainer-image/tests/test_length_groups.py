"""Rows of similar length in the same micro-batch: what changes is padding, and nothing else."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from datasets import load_from_disk
from in_process import final_weights, train_here
from test_plan import FACTS, LABELS, config_with, gang, summary_of
from torch.utils.data import DataLoader, RandomSampler

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.plan import Plan
from hone_trainer.data.length_groups import grouped, unused_share
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import Packing
from hone_trainer.planning.plan import make_plan
from hone_trainer.protocol.planfile import load_plan, save_plan
from hone_trainer.training.length_groups import group_by_length

CHANCE = random.Random(3)
LENGTHS = [CHANCE.randint(20, 400) for _ in range(2000)]
GROUPING = [Objective.SFT, Objective.CLASSIFICATION, Objective.REWARD, Objective.DPO]


def test_each_step_has_its_rows_the_longest_first() -> None:
    order = list(range(10))
    rows = list(grouped(order, [3, 9, 1, 4, 5, 2, 8, 6, 7, 0], 4))
    assert rows == [1, 3, 0, 2, 6, 7, 4, 5, 8, 9]


def test_padding_and_waiting_are_counted() -> None:
    assert unused_share([4, 4, 4, 4], 2) == 0
    assert unused_share([4, 2, 4, 2], 2) == pytest.approx(0.25)
    assert unused_share([4, 1, 4], 2) == pytest.approx(0.25)


def plan_of(lengths: list[int] = LENGTHS, packing: Packing | None = None, **sections: Any) -> Plan:
    summary = summary_of(len(lengths)).model_copy(update={"tokens": sum(lengths)})
    classes = LABELS if sections.get("objective") == "Classification" else None
    config = config_with(**sections)
    return make_plan(
        PlanInputs(
            config, FACTS, summary, max(lengths), classes, packing=packing or Packing("Not here."), lengths=lengths
        )
    )


@pytest.mark.parametrize("objective", GROUPING)
def test_rows_that_are_not_packed_are_grouped(objective: Objective) -> None:
    topology = gang(microBatchSize=4)
    if objective is Objective.SFT:
        topology["hyperparameters"] = {"packing": False}
    plan = plan_of(objective=objective.value, **topology)
    assert plan.length_grouping
    before, after = (float(part.split("%")[0].split()[-1]) for part in plan.reasons["lengthGrouping"].split(";"))
    assert before > 30
    assert after < before - 15


@pytest.mark.parametrize(
    ("lengths", "sections", "why"),
    [
        pytest.param(LENGTHS, {"packing": Packing("why", 1792, 300)}, "Rows are packed.", id="packed"),
        pytest.param(LENGTHS, {"objective": "KTO"}, "mean of a micro-batch", id="KTO"),
        pytest.param(LENGTHS, {"objective": "ORPO"}, "mean over the tokens of a micro-batch", id="ORPO"),
        pytest.param(
            LENGTHS,
            {"objective": "GRPO", "reward": {"functions": [{"name": "ExactMatch"}]}},
            "unknown before they are generated",
            id="GRPO",
        ),
        pytest.param([100] * 2000, {}, "Padding takes 0% of a step's work; 0%", id="one length"),
        pytest.param(LENGTHS, gang(microBatchSize=16), "of a step's work", id="a step is one micro-batch"),
    ],
)
def test_rows_are_left_in_their_order(lengths: list[int], sections: dict[str, Any], why: str) -> None:
    plan = plan_of(lengths, **sections)
    assert not plan.length_grouping
    assert why in plan.reasons["lengthGrouping"]


def loader(processes: int, process: int, micro: int, rows_per_step: int | None) -> Any:
    """The batches of rows that a process gets, as transformers and accelerate build them."""
    rows = list(range(len(LENGTHS)))
    torch.manual_seed(5)
    plain = DataLoader(rows, batch_size=micro, sampler=RandomSampler(rows), collate_fn=list)  # type: ignore[arg-type]
    prepared = prepare_data_loader(
        plain, num_processes=processes, process_index=process, put_on_device=False, use_seedable_sampler=True
    )
    if rows_per_step:
        group_by_length(prepared, LENGTHS, rows_per_step)
    return prepared


def steps(processes: int, micro: int, *, group: bool = True, epoch: int = 1, skip: int = 0) -> list[set[int]]:
    """The rows of each full step of 48 rows in an epoch, from a step on."""
    accumulation = 48 // (processes * micro)
    of_each = []
    for process in range(processes):
        batches = loader(processes, process, micro, 48 if group else None)
        if skip:
            batches = skip_first_batches(batches, skip * accumulation)
        batches.set_epoch(epoch)
        of_each.append(list(batches))
    full = len(LENGTHS) // 48 - skip
    return [
        {
            row
            for batches in of_each
            for batch in batches[step * accumulation : (step + 1) * accumulation]
            for row in batch
        }
        for step in range(full)
    ]


@pytest.mark.parametrize(("processes", "micro"), [(1, 4), (1, 16), (2, 8), (4, 3)])
def test_a_step_has_the_same_rows_whatever_the_processes(processes: int, micro: int) -> None:
    ungrouped = steps(1, 48, group=False)
    assert steps(processes, micro) == ungrouped
    assert steps(processes, micro, epoch=2) != ungrouped, "each epoch has an order of its own"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_epoch_goes_on_with_the_rows_that_are_left(processes: int) -> None:
    assert steps(processes, 4, skip=3) == steps(processes, 4)[3:]


def test_processes_get_rows_of_about_the_same_length() -> None:
    def waiting(group: bool) -> float:
        first, second = (loader(2, process, 4, 48 if group else None) for process in (0, 1))
        pairs = [
            (max(LENGTHS[row] for row in one), max(LENGTHS[row] for row in two))
            for one, two in zip(first, second, strict=True)
        ]
        return sum(abs(one - two) for one, two in pairs) / len(pairs)

    assert waiting(group=True) < waiting(group=False) / 2


@pytest.fixture(scope="module")
def rank() -> Iterator[None]:
    """This process as the rank of every run here."""
    with tiny.only_rank():
        yield


def lengthen(prepared: Path) -> None:
    """Rows of many lengths: each ends with its last token repeated."""

    def longer(row: dict[str, Any], index: int) -> dict[str, Any]:
        more = index * 5 % 8
        lists = {
            name: ids + ids[-1:] * more for name, ids in row.items() if isinstance(ids, list) and name != "prompt_ids"
        }
        return {**row, **lists, "length": row["length"] + more}

    rows = load_from_disk(str(prepared / "train")).map(longer, with_indices=True, keep_in_memory=True)
    shutil.rmtree(prepared / "train")
    rows.save_to_disk(str(prepared / "train"))


@pytest.mark.train
@pytest.mark.parametrize("objective", GROUPING)
@pytest.mark.usefixtures("rank")
def test_a_run_with_grouped_rows_is_the_same_run(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    original = TrainerMixin.training_step

    def training_step(self: Any, model: Any, inputs: Any, *more: Any) -> Any:
        widths.append(max(value.shape[1] for value in inputs.values() if getattr(value, "ndim", 0) == 2))
        return original(self, model, inputs, *more)

    monkeypatch.setattr(TrainerMixin, "training_step", training_step)
    weights = {}
    for group in (False, True):
        root = tmp_path / str(group)
        config = tiny.make_run(
            root, objective=objective, method=MethodType.FULL, steps=3, accumulation=4, dropout=0.0,
            learning_rate=1e-3, shared=tmp_path / "False", attention_dropout=0.0,
        )  # fmt: skip
        if not group:
            lengthen(tmp_path / "False/workspace/prepared/tiny")
        planned = load_plan(config)
        assert planned
        save_plan(
            config, planned.model_copy(update={"plan": planned.plan.model_copy(update={"length_grouping": group})})
        )
        AcceleratorState._reset_state()
        train_here(root, monkeypatch)
        weights[group] = final_weights(config)
    ungrouped, sorted_widths = widths[:12], widths[12:]
    assert len(sorted_widths) == 12
    for step in range(3):
        of_step = sorted_widths[step * 4 : step * 4 + 4]
        assert of_step == sorted(of_step, reverse=True)
        assert len(set(of_step)) > 1
    assert sum(sorted_widths) < sum(ungrouped)
    for name, values in weights[False].items():
        torch.testing.assert_close(weights[True][name], values, rtol=1e-3, atol=2e-4)
