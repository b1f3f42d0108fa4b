"""Micro-batches of at most so many tokens: the same rows in each step, and the same loss, in fewer forward passes."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import two_ranks
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from datasets import Dataset
from in_process import final_weights, train_here
from test_length_groups import GROUPING, LENGTHS, lengthen, plan_of
from test_plan import FULL, config_with, gang
from torch.utils.data import DataLoader, RandomSampler

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.runconfig import RunConfig
from hone_trainer.data.length_groups import micro_batches, passes_and_work
from hone_trainer.models.zero import deepspeed_config
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.planning.memory_fallback import fallback_levels
from hone_trainer.protocol.planfile import load_plan, save_plan
from hone_trainer.protocol.status import StatusDir
from hone_trainer.protocol.units import GIB
from hone_trainer.training import checkpoint
from hone_trainer.training.callbacks import StepHealth
from hone_trainer.training.step_shares import MICRO_BATCHES, ShareDataset, by_share, weighted

GPUS = gang(processes=2, gpus=2, memoryBytes=80 * GIB)
LONG = [min(8192, 40 * length) if index % 50 == 0 else length for index, length in enumerate(LENGTHS)]
"""Rows of which a few are much longer."""
ROWS, TOKENS = 48, 1200
"""Rows of a step, and most tokens of a micro-batch, in tests without training."""


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("tokens", [50, 400, 1200, 100_000])
def test_each_row_is_in_one_micro_batch_and_each_process_has_as_many(processes: int, tokens: int) -> None:
    chance = random.Random(tokens)
    for _ in range(20):
        rows = chance.sample(range(len(LENGTHS)), processes * chance.randint(1, 12))
        shares = micro_batches(rows, LENGTHS, tokens, processes)
        parts = [part for share in shares for part in share]
        assert sorted(row for part in parts for row in part) == sorted(rows) and all(parts)
        assert len({tuple(map(len, share)) for share in shares}) == 1, "losses gather figures of a micro-batch's rows"
        assert all(len(part) == 1 or len(part) * max(LENGTHS[row] for row in part) <= tokens for part in parts)


def test_micro_batches_are_few_and_take_about_as_long() -> None:
    assert micro_batches(range(6), [8, 1, 1, 1, 1, 4], 8) == [[[0], [5], [1, 2, 3, 4]]]
    passes, work = passes_and_work(LENGTHS, ROWS, TOKENS, 2)
    fewest = sum(LENGTHS) / len(LENGTHS) * ROWS / TOKENS / 2
    assert fewest < passes < 1.5 * fewest
    assert work < 1.25 * sum(LENGTHS) / len(LENGTHS) * ROWS


def loader(processes: int, process: int, rows: int = len(LENGTHS)) -> Any:
    """The shares of a process, as transformers and accelerate build the loader."""
    dataset = ShareDataset(Dataset.from_dict({"row": range(rows)}))
    torch.manual_seed(5)
    plain = DataLoader(dataset, batch_size=1, sampler=RandomSampler(dataset), collate_fn=list)
    prepared = prepare_data_loader(
        plain, num_processes=processes, process_index=process, put_on_device=False, use_seedable_sampler=True
    )
    by_share(prepared, LENGTHS, ROWS, TOKENS, processes)
    return prepared


def steps(processes: int, *, epoch: int = 1, skip: int = 0, rows: int = len(LENGTHS)) -> list[list[list[int]]]:
    """The rows of each process in each step of an epoch, from a step on."""
    of_each = []
    for process in range(processes):
        batches = loader(processes, process, rows)
        assert len(batches) == -(-rows // ROWS)
        if skip:
            batches = skip_first_batches(batches, skip)
        batches.set_epoch(epoch)
        of_each.append([[row["row"] for part in batch[MICRO_BATCHES] for row in part] for batch in batches])
    return [list(step) for step in zip(*of_each, strict=True)]


def whole(step: list[list[int]]) -> list[int]:
    return sorted(row for share in step for row in share)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_step_has_the_same_rows_whatever_the_processes(processes: int) -> None:
    one = [whole(step) for step in steps(1)]
    several = [whole(step) for step in steps(processes)]
    assert several[:-1] == one[:-1] and set(several[-1]) >= set(one[-1])
    assert [len(step) for step in several] == [ROWS] * (len(LENGTHS) // ROWS) + [len(LENGTHS) % ROWS]
    assert [whole(step) for step in steps(processes, epoch=2)] != several, "each epoch has an order of its own"


def test_a_last_step_is_filled_up_so_that_each_process_has_a_row() -> None:
    last = steps(4, rows=2 * ROWS + 5)[-1]
    assert len(whole(last)) == 8 and all(last)
    weights = [
        weight for process in range(4) for batch in loader(4, process, ROWS + 1) for _, weight in weighted(batch)
    ]
    assert sum(weights) / 4 == pytest.approx(2), "losses are means over the rows of each of two steps"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_epoch_goes_on_with_the_rows_that_are_left(processes: int) -> None:
    assert steps(processes, skip=3) == steps(processes)[3:]


# The plan.


@pytest.mark.parametrize("objective", GROUPING)
def test_a_plan_cuts_by_tokens_where_that_takes_fewer_passes(objective: Objective) -> None:
    settings = {"hyperparameters": {"packing": False}} if objective is Objective.SFT else {}
    plan = plan_of(LONG, objective=objective.value, **settings, **GPUS)
    assert plan.micro_batch_tokens == plan.micro_batch_size * max(LONG)
    assert plan.length_grouping
    reason = plan.reasons["microBatchTokens"]
    assert f"forward passes a step instead of {plan.gradient_accumulation_steps}" in reason
    assert float(reason.split()[0]) < plan.gradient_accumulation_steps / 2


@pytest.mark.parametrize(
    ("lengths", "sections"),
    [
        pytest.param(LENGTHS, {"objective": "KTO"}, id="KTO"),
        pytest.param(LENGTHS, {"objective": "ORPO"}, id="ORPO"),
        pytest.param([300] * 2000, {"objective": "DPO"}, id="one length"),
        pytest.param(LONG, {"objective": "DPO", **gang()}, id="on CPUs"),
        pytest.param(LENGTHS, {"objective": "DPO", **gang(microBatchSize=2)}, id="set in the spec"),
        pytest.param(
            LENGTHS,
            {**FULL, "objective": "DPO", **gang(processes=2, gpus=2, memoryBytes=80 * GIB, offloadOptimizer=True)},
            id="offloaded",
        ),
    ],
)
def test_other_plans_have_as_many_rows_in_each(lengths: list[int], sections: dict[str, Any]) -> None:
    plan = plan_of(lengths, **(GPUS | sections))
    assert plan.micro_batch_tokens is None and "microBatchTokens" not in plan.reasons


def test_to_the_libraries_a_step_is_one_batch() -> None:
    plan = plan_of(objective="DPO", **GPUS).model_copy(update={"zero_stage": 2, "micro_batch_tokens": 800})
    zero = deepspeed_config(plan)
    assert zero is not None
    assert (zero["train_micro_batch_size_per_gpu"], zero["gradient_accumulation_steps"]) == (1, 1)


def test_levels_of_the_memory_fallback_halve_the_tokens() -> None:
    plan = plan_of(objective="DPO", **GPUS).model_copy(
        update={"micro_batch_size": 4, "gradient_accumulation_steps": 3, "micro_batch_tokens": 1600}
    )
    levels = fallback_levels(plan, config_with(**GPUS).topology)
    assert [(level.plan.micro_batch_size, level.plan.micro_batch_tokens) for level in levels[:3]] == [
        (4, 1600),
        (2, 800),
        (1, 400),
    ]
    assert levels[1].change == "microBatchSize 4 → 2, gradientAccumulationSteps 3 → 6, microBatchTokens 1600 → 800"


# Training.


def run(root: Path, shared: Path, tokens: int | None, **plan: Any) -> RunConfig:
    """A run whose rows are of many lengths, in micro-batches of so many tokens; None: of four rows."""
    settings: dict[str, Any] = {
        "method": MethodType.FULL,
        "steps": 4,
        "every": 2,
        "learning_rate": 1e-3,
        "dropout": 0.0,
    }
    config = tiny.make_run(root, **(settings | {"accumulation": 4, "attention_dropout": 0.0} | plan), shared=shared)
    if not (shared / "lengthened").exists():
        lengthen(shared / "workspace/prepared/tiny")
        (shared / "lengthened").touch()
    planned = load_plan(config)
    assert planned
    changed = {"length_grouping": tokens is not None, "micro_batch_tokens": tokens}
    save_plan(config, planned.model_copy(update={"plan": planned.plan.model_copy(update=changed)}))
    return config


@pytest.fixture(scope="module")
def rank() -> Iterator[None]:
    """This process as the rank of every run here."""
    with tiny.only_rank():
        yield


@pytest.mark.train
@pytest.mark.parametrize("objective", GROUPING)
@pytest.mark.usefixtures("rank")
def test_a_run_by_tokens_has_the_losses_of_one_by_rows(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, losses = [0], []
    step, take = TrainerMixin.micro_batch_step, StepHealth.take

    def counted(self: Any, *args: Any) -> Any:
        passes[-1] += 1
        return step(self, *args)

    def noted(self: Any) -> tuple[float, bool]:
        losses.append(take(self)[0])
        return losses[-1], True

    monkeypatch.setattr(TrainerMixin, "micro_batch_step", counted)
    monkeypatch.setattr(StepHealth, "take", noted)
    weights = []
    for name, tokens in (("rows", None), ("tokens", 200)):
        config = run(tmp_path / name, tmp_path / "rows", tokens, objective=objective)
        AcceleratorState._reset_state()
        train_here(tmp_path / name, monkeypatch)
        weights.append(final_weights(config))
        passes.append(0)
    assert passes[0] == 16 and passes[1] < 12
    torch.testing.assert_close(losses[4:], losses[:4], rtol=1e-4, atol=1e-5)
    assert losses[0] != losses[3]
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, rtol=1e-3, atol=2e-4)


@pytest.mark.train
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("objective", "stage"), [(Objective.SFT, 0), (Objective.DPO, 2), (Objective.DPO, 3)])
def test_two_processes_by_tokens_make_the_run_that_they_make_by_rows(
    objective: Objective, stage: int, tmp_path: Path
) -> None:
    plan = {"objective": objective, "zero_stage": stage, "processes": 2}
    roots = tmp_path / "rows", tmp_path / "tokens"
    rows, tokens = (run(root, roots[0], most, **plan) for root, most in zip(roots, (None, 200), strict=True))
    two_ranks.train(*roots)
    by_rows, by_tokens = final_weights(rows), final_weights(tokens)
    for name, values in by_rows.items():
        torch.testing.assert_close(by_tokens[name], values, rtol=1e-3, atol=2e-4)
    # Again from the second step on.
    shutil.rmtree(checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(tokens), 4))
    two_ranks.train(roots[1])
    assert [one.resumed_from_step for one in StatusDir(roots[1] / "status").statuses().values()] == [2, 2]
    resumed = final_weights(tokens)
    assert all(torch.equal(values, resumed[name]) for name, values in by_tokens.items())
