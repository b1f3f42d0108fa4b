"""A job of the same spec continues the training of one that failed: what prepare takes over, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from in_process import final_weights, train_here

from hone.contract.runconfig import RunConfig
from hone.contract.settings import EarlyStopping, Hyperparameters, Select, TrainOn
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PlanFile, load_plan, require_plan, save_plan
from hone_trainer.protocol.runconfig import digest_of, training_digest
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.training import callbacks, checkpoint
from hone_trainer.training.continuation import take_over

Job = Callable[..., tuple[RunConfig, PlanFile]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job as prepare has planned it, on one workspace with all others here; its RunConfig is `<uid>/run.json`."""

    def make(name: str, uid: str, continues: str | None = None) -> tuple[RunConfig, PlanFile]:
        root = tmp_path / uid
        config = tiny.make_run(root, steps=6, every=2, shared=tmp_path / "shared")
        plan = require_plan(config)
        workspace = tmp_path / "workspace"
        config = config.model_copy(
            update={
                "job": config.job.model_copy(update={"name": name, "uid": uid}),
                "paths": config.paths.model_copy(
                    update={"workspace": str(workspace), "run": str(workspace / "team-a" / name / uid)}
                ),
                "checkpoint": config.checkpoint.model_copy(update={"continue_from": continues}),
            }
        )
        (root / "run.json").write_text(config.to_json())
        plan = plan.model_copy(
            update={"run_config_digest": digest_of(config), "training_digest": training_digest(config)}
        )
        save_plan(config, plan)
        return config, plan

    tiny.make_run(tmp_path / "shared")
    return make


def save(
    config: RunConfig, step: int, *, final: bool = False, eval_loss: float | None = None, losses: tuple[float, ...] = ()
) -> Path:
    """A checkpoint of a run, as its ranks leave it; with the losses on the validation rows of steps 1, 2, …"""
    path = checkpoint.checkpoint_dir(checkpoint.checkpoints_dir(config), step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(f"weights of step {step}")
    (path / "optimizer.pt").write_text("moments")
    history = [{"step": at, "eval_loss": loss} for at, loss in enumerate(losses, start=1)]
    (path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    written = checkpoint.Written(checkpoint.sync_part(path, 0), checkpoint.digests_of_part(path, 0))
    mark = {"step": step, "world_size": 1, "zero_stage": 0, "final": final, "eval_loss": eval_loss}
    checkpoint.complete(path, written, **mark, run_config=digest_of(config))
    return path


def test_the_newest_whole_checkpoint_of_the_job_is_taken_over(job: Job) -> None:
    first, _ = job("old", "1")
    again, _ = job("old", "2")
    save(first, 4)
    source = save(again, 2)
    half = save(again, 6)
    (half / "COMPLETE.json").unlink()
    config, plan = job("new", "3", continues="old")
    assert take_over(config, plan) == 4
    path, mark = checkpoint.newest(config) or pytest.fail("it has none")
    assert (mark.step, mark.final) == (4, False)
    assert (path / "model.safetensors").read_text() == "weights of step 4"
    assert checkpoint.differences(path, mark) == []
    assert source.exists() and take_over(config, plan) == 4, "nothing is lost, and again is harmless"


def test_a_job_made_again_under_its_name_continues_and_its_end_is_taken_over_too(job: Job) -> None:
    save(job("bot", "1")[0], 6, final=True)
    config, plan = job("bot", "2", continues="bot")
    assert take_over(config, plan) == 6
    assert checkpoint.final_checkpoint(config) is not None, "training has ended, so the model is exported at once"


def test_the_best_checkpoint_is_taken_over_too_where_it_is_to_be_exported(job: Job) -> None:
    old, _ = job("old", "1")
    for step, loss in ((2, 0.5), (4, 0.7)):
        save(old, step, eval_loss=loss)
    for uid, select, steps in (("2", Select.BEST, [2, 4]), ("3", Select.LAST, [4])):
        config, plan = job("new", uid, continues="old")
        plan = plan.model_copy(update={"plan": plan.plan.model_copy(update={"checkpoint_select": select})})
        assert take_over(config, plan) == 4
        copies = checkpoint.whole(checkpoint.checkpoints_dir(config))
        assert [mark.step for _, mark in copies] == steps
        assert copies[0][1].eval_loss == (0.5 if select is Select.BEST else 0.7)


@pytest.mark.parametrize(("patience", "ended"), [(None, False), (3, False), (2, True)])
def test_a_run_that_was_ended_early_goes_on_where_the_spec_is_more_patient(
    patience: int | None, ended: bool, job: Job
) -> None:
    old, _ = job("old", "1")
    save(old, 4, final=True, losses=(0.9, 0.5, 0.6, 0.7))
    config, plan = job("new", "2", continues="old")
    stopping = EarlyStopping(patience=patience) if patience else None
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"early_stopping": stopping})})
    assert take_over(config, plan) == 4
    assert (checkpoint.final_checkpoint(config) is not None) is ended


def test_a_job_that_continues_none_takes_nothing(job: Job) -> None:
    save(job("old", "1")[0], 4)
    config, plan = job("new", "2")
    assert take_over(config, plan) is None
    assert checkpoint.newest(config) is None


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("has other data", {"dataset": tiny.summary(9, 9).model_copy(update={"digest": "sha256:other"})}),
        ("has another base model", {"model_digest": "sha256:other"}),
        ("has another spec", {"training_digest": "sha256:other"}),
        ("an earlier release of Hone ran it", {"training_digest": None}),
    ],
)
def test_a_job_of_another_spec_is_refused(words: str, change: dict[str, object], job: Job) -> None:
    old, plan = job("old", "1")
    save(old, 4)
    save_plan(old, plan.model_copy(update=change))
    with pytest.raises(BadInput, match=words) as refused:
        take_over(*job("new", "2", continues="old"))
    assert refused.value.field == "spec.checkpoint.continueFrom"


def test_another_number_of_processes_is_refused(job: Job) -> None:
    old, plan = job("old", "1")
    save(old, 4)
    save_plan(old, plan.model_copy(update={"plan": plan.plan.model_copy(update={"world_size": 2})}))
    with pytest.raises(BadInput, match="its plan has another worldSize"):
        take_over(*job("new", "2", continues="old"))


def test_what_is_not_there_or_was_changed_is_refused(job: Job) -> None:
    with pytest.raises(BadInput, match="the workspace has no run of a job 'old'"):
        take_over(*job("new", "9", continues="old"))
    old, _ = job("old", "1")
    with pytest.raises(BadInput, match="it has no complete checkpoint"):
        take_over(*job("new", "2", continues="old"))
    path = save(old, 4)
    (path / "stray").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="'stray' is a link"):
        take_over(*job("new", "4", continues="old"))
    (path / "stray").unlink()
    (path / "optimizer.pt").write_text("poison!")
    with pytest.raises(BadInput, match=r"step 4 was changed .*'optimizer.pt' has other content"):
        take_over(*job("new", "3", continues="old"))


def test_only_what_decides_the_training_must_be_the_same(job: Job) -> None:
    config, _ = job("a", "1")
    other, _ = job("b", "2", continues="a")
    assert training_digest(config) == training_digest(other)
    assert digest_of(config) != digest_of(other)
    for update in (
        {"hyperparameters": Hyperparameters(seed=8)},
        {"data": config.data.model_copy(update={"train_on": TrainOn.ALL})},
    ):
        assert training_digest(config.model_copy(update=update)) != training_digest(config)


@pytest.mark.train
def test_a_continued_training_equals_an_uninterrupted_one(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = callbacks.Checkpointing.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self._status.raise_stop()
        return original(self, args, state, control, **kwargs)

    with tiny.only_rank():
        whole, _ = job("whole", "1")
        train_here(tmp_path / "1", monkeypatch)
        job("cut", "2")
        with monkeypatch.context() as patch:
            patch.setattr(callbacks.Checkpointing, "on_step_end", on_step_end)
            with pytest.raises(Preempted):
                train_here(tmp_path / "2", monkeypatch)
        config, plan = job("new", "3", continues="cut")
        assert take_over(config, plan) == 3
        assert load_plan(config) is not None
        train_here(tmp_path / "3", monkeypatch)
    first, second = final_weights(whole), final_weights(config)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) == 0.0
