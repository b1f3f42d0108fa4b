"""A rank in this process: what it learns, where it resumes, what makes it stop.

One process, so no agreement between ranks: that is in test_train_processes.py.
"""

import errno
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from hone.contract.exits import FailureClass
from hone.contract.methods import MethodType
from hone.contract.runconfig import RunConfig
from hone_trainer import train
from hone_trainer.protocol.errors import BadInput, WorkspaceFull, full_disk_hint
from hone_trainer.protocol.status import BUDGET, SIGTERM, RankStatus, StatusDir
from hone_trainer.protocol.verdicts import Diverged, Preempted, classify, of_pod
from hone_trainer.training import callbacks, checkpoint
from hone_trainer.training.callbacks import StepHealth

pytestmark = pytest.mark.slow

WEIGHTS = {
    MethodType.LORA: "adapter_model.safetensors",
    MethodType.QLORA: "adapter_model.safetensors",
    MethodType.FULL: "model.safetensors",
}


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], StatusDir]:
    """Runs rank 0 of a run in this process, to its end or its error; its status is in `<root>/status`."""

    def run(config: RunConfig) -> StatusDir:
        root = Path(config.paths.output).parent
        monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
        (root / "status").mkdir(exist_ok=True)
        status = StatusDir(root / "status")
        train._train(0, status)
        return status

    return run


def weights(config: RunConfig, step: int) -> dict[str, torch.Tensor]:
    """The weights in the checkpoint of a step."""
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), step)
    return load_file(path / WEIGHTS[config.method.type])


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Over all weights."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, by: str = SIGTERM) -> None:
    """Raise the stop flag once the step is done, as the launcher does on SIGTERM."""
    original = callbacks.Checkpointing.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            self._status.raise_stop(by)
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(callbacks.Checkpointing, "on_step_end", on_step_end)


@pytest.mark.parametrize(
    "method",
    [MethodType.LORA, *(pytest.param(slow, marks=pytest.mark.train) for slow in (MethodType.QLORA, MethodType.FULL))],
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    method: MethodType, shared: Path, tmp_path: Path, rank: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two steps per epoch of 16 rows each: the stop at step 3 is in the middle of an epoch.
    plan = {"method": method, "steps": 6, "every": 100, "accumulation": 2, "micro_batch": 64, "shared": shared}
    whole = tiny.make_run(tmp_path / "whole", **plan)
    rank(whole)

    # Evaluations, which the other run does not have, leave no trace either.
    cut = tiny.make_run(tmp_path / "cut", **plan, evaluate=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Preempted, match="at step 3"):
            rank(cut)
    assert checkpoint.newest(cut)[1].step == 3
    (tmp_path / "cut/status/stop").unlink()
    reported = rank(cut).statuses()[0]

    if method.adapts:
        # In bf16 small updates would be lost, whatever the base is held in.
        assert {tensor.dtype for tensor in weights(whole, 6).values()} == {torch.float32}
    assert (reported.step, reported.resumed_from_step, reported.stage) == (6, 3, "Done")
    assert 0 < reported.eval_loss < 5
    assert largest_difference(weights(whole, 6), weights(cut, 6)) == 0.0
    assert largest_difference(weights(whole, 6), weights(cut, 3)) > 0.0, "the last steps trained something"


@pytest.mark.train
@pytest.mark.parametrize("method", list(MethodType))
def test_another_micro_batch_changes_the_weights_by_rounding_alone(
    method: MethodType, tmp_path: Path, rank: Callable
) -> None:
    # operator/ARCHITECTURE.md tells of the difference measured here. With dropout other values are dropped, too.
    plan = {"method": method, "steps": 10, "every": 10, "dropout": 0.0, "attention_dropout": 0.0}
    once = tiny.make_run(tmp_path / "once", **plan, micro_batch=4, accumulation=1)
    twice = tiny.make_run(tmp_path / "twice", **plan, micro_batch=2, accumulation=2, shared=tmp_path / "once")
    less = tiny.make_run(tmp_path / "less", **plan | {"steps": 5}, micro_batch=4, shared=tmp_path / "once")
    for config in (once, twice, less):
        rank(config)
    assert largest_difference(weights(once, 10), weights(twice, 10)) < 1e-4
    assert largest_difference(weights(once, 10), weights(less, 5)) > 1e-2, "what five steps do"


@pytest.mark.train
def test_it_learns_from_the_labels_alone(
    shared: Path, tmp_path: Path, rank: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = tiny.make_run(
        tmp_path, method=MethodType.FULL, steps=60, every=50, keep=1, micro_batch=32, learning_rate=1e-2, shared=shared
    )
    status = rank(config)
    reported = status.statuses()[0]
    assert reported.loss < 1.0, "eight answers by chance are a loss of 2.08 per answer"
    assert (reported.step, reported.total_steps, reported.checkpoint_step) == (60, 60, 60)
    assert reported.tokens_per_second > 0
    assert reported.seconds_per_step > 0
    assert reported.tokens > 60 * 32 * 4
    lines = [record for record in caplog.records if record.msg == "step"]
    assert lines, "the log shows the loss as it falls"
    assert lines[0].loss > 1.5
    checkpoints = checkpoint.whole(checkpoint.checkpoints_dir(config))
    assert [(mark.step, mark.final) for _, mark in checkpoints] == [(60, True)], "keep is 1"
    assert not list(Path(config.paths.run).rglob("training_args.bin"))


def test_a_half_checkpoint_is_passed_over_and_written_again(shared: Path, tmp_path: Path, rank: Callable) -> None:
    config = tiny.make_run(tmp_path, steps=4, every=2, keep=3, shared=shared)
    rank(config)
    directory = checkpoint.checkpoints_dir(config)
    last = checkpoint.checkpoint_dir(directory, 4)
    (last / checkpoint.COMPLETE_FILE).unlink()
    (last / "left-over.pt").write_bytes(b"of the attempt that was killed")
    assert rank(config).statuses()[0].resumed_from_step == 2
    assert checkpoint.final_checkpoint(config)[0] == last
    assert not (last / "left-over.pt").exists()


def test_a_loss_that_is_no_number_ends_the_run_without_a_checkpoint(
    shared: Path, tmp_path: Path, rank: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path, steps=20, every=1, keep=9, shared=shared)
    original = StepHealth.take
    taken: list[bool] = []

    def take(self: StepHealth) -> tuple[float, bool]:
        # From the fourth step on the loss is NaN; before, a single one, which is forgiven.
        loss, finite = original(self)
        taken.append(finite)
        return loss, len(taken) in (1, 3) and finite

    monkeypatch.setattr(StepHealth, "take", take)
    with pytest.raises(Diverged, match="3 steps in a row, up to step 6"):
        rank(config)
    steps = [mark.step for _, mark in checkpoint.whole(checkpoint.checkpoints_dir(config))]
    assert steps == [1, 3], "none is written after a step that was not finite"


def test_a_broken_model_diverges(shared: Path, tmp_path: Path, rank: Callable) -> None:
    from transformers import LlamaForCausalLM

    config = tiny.make_run(tmp_path, method=MethodType.FULL, steps=20)
    model = LlamaForCausalLM.from_pretrained(config.paths.model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    model.save_pretrained(config.paths.model)
    with pytest.raises(Diverged, match="3 steps in a row, up to step 3"):
        rank(config)
    assert checkpoint.newest(config) is None


def test_a_full_workspace_costs_no_whole_checkpoint(
    shared: Path, tmp_path: Path, rank: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    config = tiny.make_run(tmp_path, steps=4, every=2, keep=1, shared=shared)
    original = Trainer._save_optimizer_and_scheduler

    def save(self, output_dir):
        if self.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", output_dir)
        original(self, output_dir)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", save)
    monkeypatch.setenv("HONE_STATUS_DIR", str(tmp_path / "status"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(WorkspaceFull, match="no space is left for checkpoint-4"):
        rank(config)
    half = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), 4)
    assert (half / "adapter_model.safetensors").exists()

    # As main ends with it.
    full = WorkspaceFull("[Errno 28] No space left on device", half)
    monkeypatch.setattr(train, "_train", lambda *_: (_ for _ in ()).throw(full))
    assert train.main() == 70
    verdict = StatusDir(tmp_path / "status").verdicts()[0]
    assert (verdict.failure_class, verdict.hint) == (FailureClass.CRASHED, full_disk_hint(full))
    assert not half.exists()
    assert checkpoint.newest(config)[1].step == 2


def test_a_raised_flag_stops_a_rank_before_it_loads_anything(shared: Path, tmp_path: Path, rank: Callable) -> None:
    config = tiny.make_run(tmp_path, shared=shared)
    (tmp_path / "status").mkdir()
    StatusDir(tmp_path / "status").raise_stop()
    with pytest.raises(Preempted, match="before its first step"):
        rank(config)
    assert not checkpoint.checkpoints_dir(config).exists()


def test_a_used_budget_ends_the_step_with_a_checkpoint_from_which_a_raised_one_continues(
    shared: Path, tmp_path: Path, rank: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path, shared=shared, steps=6, every=100)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, BUDGET)
        with pytest.raises(Preempted, match="stopped by the budget of the job, which is used up, at step 3"):
            rank(config)
    assert checkpoint.newest(config)[1].step == 3, "no further step is begun"
    (tmp_path / "status" / "stop").unlink()
    rank(config)
    assert checkpoint.final_checkpoint(config)[1].step == 6


def test_another_gang_may_not_resume(shared: Path, tmp_path: Path, rank: Callable) -> None:
    config = tiny.make_run(tmp_path, shared=shared)
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), 2)
    path.mkdir(parents=True)
    tiny.mark_whole(path, step=2, world_size=4, zero_stage=0, final=False)
    with pytest.raises(BadInput, match="world size 4, but the plan has 1"):
        rank(config)


def test_main_writes_a_verdict_and_returns_hones_code(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = StatusDir(tmp_path)
    status.write_status(RankStatus(rank=1, step=5))
    monkeypatch.setenv("HONE_STATUS_DIR", str(tmp_path))
    monkeypatch.setenv("RANK", "1")

    def ends_with(error: Exception) -> int:
        monkeypatch.setattr(train, "_train", lambda *_: (_ for _ in ()).throw(error))
        return train.main()

    assert ends_with(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) == 65
    assert status.verdicts()[0].failure_class == FailureClass.OUT_OF_MEMORY
    assert (status.verdicts()[0].rank, status.verdicts()[0].step) == (1, 5)
    assert ends_with(Diverged("no number")) == 66
    assert ends_with(Preempted("stopped")) == 0, "another code would make torchrun end the other ranks"
    assert status.verdicts()[0].failure_class == FailureClass.PREEMPTED


def test_peers_that_never_come_are_a_communication_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone_trainer.launcher import elastic

    def nobody_came(_: object) -> None:
        raise torch.distributed.DistNetworkError("The client socket has timed out after 600000ms")

    monkeypatch.setenv("HONE_STATUS_DIR", str(tmp_path))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setattr("sys.argv", ["elastic", "--module", "hone_trainer.train"])
    monkeypatch.setattr(elastic, "run", nobody_came)
    assert elastic.main() == 1
    verdict = of_pod(StatusDir(tmp_path), 1, node=1, killed_for_memory=False)
    assert (verdict.failure_class, verdict.rank, verdict.node) == (FailureClass.COMMUNICATION, None, 1)


def test_torchs_own_errors_are_sorted() -> None:
    assert classify(torch.OutOfMemoryError("out of memory")) == FailureClass.OUT_OF_MEMORY
    for kind in (torch.distributed.DistBackendError, torch.distributed.DistNetworkError):
        assert classify(kind("ncclRemoteError")) == FailureClass.COMMUNICATION


def test_health_sees_a_number_that_is_none_in_any_micro_batch() -> None:
    health = StepHealth()
    for bad in (math.nan, math.inf):
        health.add_loss(torch.tensor(bad))
        health.add_loss(torch.tensor(1.0))
        assert not health.take()[1]
    health.add_loss(torch.tensor(1.0))
    health.add_loss(torch.tensor(0.5))
    assert health.take() == (1.5, True), "each step starts again"
    health.add_loss(torch.tensor(1.0))
    health.add_norm(math.nan)
    assert health.take() == (1.0, False), "a gradient norm may be a float"


def test_after_a_divergence_the_schedule_goes_on_at_half_the_rate(
    shared: Path, tmp_path: Path, rank: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[int, float] = {}
    original = callbacks.Reporting.on_log

    def on_log(self, args, state, control, logs=None, **kwargs):
        rates[state.global_step] = (logs or {}).get("learning_rate", 0.0)
        return original(self, args, state, control, logs=logs, **kwargs)

    monkeypatch.setattr(callbacks.Reporting, "on_log", on_log)
    config = tiny.make_run(tmp_path / "whole", steps=8, every=100, shared=shared)
    rank(config)
    planned = dict(rates)

    cut = tiny.make_run(tmp_path / "cut", steps=8, every=100, shared=shared)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Preempted):
            rank(cut)
    (tmp_path / "cut/status/stop").unlink()
    rates.clear()
    monkeypatch.setenv("HONE_ATTEMPT", '{"number": 2, "learningRateFactor": 0.5}')
    rank(cut)
    # The Trainer logs the rate of a step after the schedule has moved on.
    assert min(planned[step] for step in range(4, 8)) > 0
    assert {step: rates[step] for step in range(4, 9)} == pytest.approx({s: planned[s] / 2 for s in range(4, 9)})
    assert largest_difference(weights(config, 8), weights(cut, 8)) > 0.0
