"""Checkpoints: what counts as whole, which is resumed from, what is removed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from hone.contract.runconfig import Attempt, RunConfig
from hone_trainer.launcher.attempt import PodAttempt
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint


def make(directory: Path, step: int, *, whole: bool = True, final: bool = False, run: str | None = None) -> Path:
    """A checkpoint of two files."""
    path = checkpoint.checkpoint_dir(directory, step)
    (path / "global_step").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"w" * step)
    (path / "global_step" / "shard.pt").write_bytes(b"s")
    if whole:
        tiny.mark_whole(path, step=step, world_size=2, zero_stage=2, final=final, run_config=run)
    return path


def steps(directory: Path) -> list[int]:
    """Steps of all checkpoint directories, whole or not."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in directory.glob("checkpoint-*"))


def test_newest_is_by_step_and_not_by_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make(tmp_path, step)
    path, mark = checkpoint.whole(tmp_path)[-1]
    assert (path.name, mark.world_size, mark.zero_stage) == ("checkpoint-100", 2, 2)


def test_half_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    make(tmp_path, 10)
    make(tmp_path, 20, whole=False)
    assert [path.name for path, _ in checkpoint.whole(tmp_path)] == ["checkpoint-10"]


def test_checkpoint_with_a_cut_or_missing_file_is_not_whole(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (make(tmp_path, 20) / "model.safetensors").write_bytes(b"short")
    (make(tmp_path, 30) / "global_step" / "shard.pt").unlink()
    (make(tmp_path, 40) / checkpoint.COMPLETE_FILE).write_text('{"step": 4')
    assert [mark.step for _, mark in checkpoint.whole(tmp_path)] == [10]


def test_the_mark_and_its_name_outlive_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    path = make(tmp_path, 5)
    assert any("COMPLETE.json" in name for name in synced)
    assert synced[-1] == str(path), "the directory comes last, once the mark has its name"


def test_no_checkpoints_is_none(tmp_path: Path) -> None:
    assert checkpoint.whole(tmp_path) == []
    assert checkpoint.whole(tmp_path / "missing") == []
    assert checkpoint.prune(tmp_path, 2) == []


def run_in(directory: Path, **changes: object) -> RunConfig:
    """A run whose own directory is `directory`."""
    document = {"job": {"namespace": "n", "name": "j", "uid": "u"}, "modelName": "m", "data": {"train": "/d"}}
    return RunConfig.from_dict({**document, "paths": {"run": str(directory)}, **changes})


def test_only_a_final_checkpoint_ends_a_run(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    directory = checkpoint.checkpoints_dir(config)
    make(directory, 10)
    assert checkpoint.final_checkpoint(config) is None
    make(directory, 20, final=True)
    assert checkpoint.final_checkpoint(config)[1].step == 20


def test_a_checkpoint_of_another_run_config_is_not_resumed_from(tmp_path: Path) -> None:
    mine, other = run_in(tmp_path), run_in(tmp_path, hyperparameters={"seed": 1})
    directory = checkpoint.checkpoints_dir(mine)
    make(directory, 10)
    make(directory, 20, run=digest_of(mine))
    make(directory, 30, run=digest_of(other), final=True)
    assert checkpoint.newest(mine)[1].step == 20
    assert checkpoint.final_checkpoint(mine) is None
    assert checkpoint.newest(other)[1].step == 30
    assert [mark.step for _, mark in checkpoint.whole(directory, digest_of(mine))] == [10, 20], "10 does not say whose"


def test_prune_removes_those_of_another_run_config_once_one_of_this_is_whole(tmp_path: Path) -> None:
    make(tmp_path, 10, run="other")
    make(tmp_path, 30, run="other", final=True)
    checkpoint.prune(tmp_path, 2, "mine")
    assert steps(tmp_path) == [10, 30], "nothing of mine is whole yet"
    make(tmp_path, 20, run="mine")
    checkpoint.prune(tmp_path, 2, "mine")
    assert steps(tmp_path) == [20]


def test_training_arguments_do_not_stay(tmp_path: Path) -> None:
    path = make(tmp_path, 10, whole=False)
    (path / "training_args.bin").write_bytes(b"hub token in clear")
    mark = tiny.mark_whole(path, step=10, world_size=1, zero_stage=0, final=False)
    assert not (path / "training_args.bin").exists()
    assert sorted(mark.files) == ["global_step/shard.pt", "model.safetensors"]


def test_prune_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        make(tmp_path, step)
    gone = checkpoint.prune(tmp_path, keep=2)
    assert [path.name for path in gone] == ["checkpoint-10"]
    assert steps(tmp_path) == [20, 30]


def test_prune_removes_a_half_one_only_once_a_later_one_is_whole(tmp_path: Path) -> None:
    make(tmp_path, 10)
    make(tmp_path, 20, whole=False)
    checkpoint.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [10, 20]
    make(tmp_path, 30)
    checkpoint.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [10, 30]


def test_prune_leaves_what_is_no_checkpoint(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.prune(tmp_path, keep=1)
    assert (tmp_path / "checkpoint-best").exists()
    assert (tmp_path / "notes.txt").exists()


def test_what_is_in_the_way_of_a_checkpoint_is_removed_unless_it_is_one(tmp_path: Path) -> None:
    half, good, foreign = make(tmp_path, 10, whole=False), make(tmp_path, 20, run="mine"), make(tmp_path, 30, run="it")
    for path in (half, good, foreign):
        checkpoint.discard_unusable(path, "mine")
    assert steps(tmp_path) == [20]


def change_byte(path: Path) -> None:
    """Change a file, but not its size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    """A link to the same content."""
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed byte": (lambda at: change_byte(at / "model.safetensors"), "'model.safetensors' has other content"),
    "changed byte below": (lambda at: change_byte(at / "global_step/shard.pt"), "'global_step/shard.pt' has other"),
    "added pickle": (lambda at: (at / "pytorch_model.bin").write_bytes(b"x"), "'pytorch_model.bin' was added"),
    "link": (lambda at: replace_by_link(at / "model.safetensors"), "'model.safetensors' is a link"),
}


@pytest.mark.parametrize(("attack", "words"), ATTACKS.values(), ids=ATTACKS)
def test_a_changed_checkpoint_is_passed_over_for_an_earlier_one(
    tmp_path: Path, attack: Callable[[Path], object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_in(tmp_path)
    directory = checkpoint.checkpoints_dir(config)
    make(directory, 10)
    attack(make(directory, 20))
    assert checkpoint.newest(config)[1].step == 20, "its sizes are those that it had"
    (sentence,) = checkpoint.discard_changed(config)
    assert sentence.startswith("the checkpoint of step 20 is not used: ")
    assert words in sentence
    assert checkpoint.newest(config)[1].step == 10
    assert checkpoint.discard_changed(config) == []
    assert "changed after it was written" in caplog.text


def test_all_checkpoints_may_be_changed(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    for step in (10, 20):
        change_byte(make(checkpoint.checkpoints_dir(config), step) / "model.safetensors")
    assert len(checkpoint.discard_changed(config)) == 2
    assert checkpoint.newest(config) is None


def test_a_checkpoint_without_digests_is_compared_by_sizes(tmp_path: Path) -> None:
    path = make(tmp_path, 10, whole=False)
    checkpoint.complete(
        path, checkpoint.Written(checkpoint.sync_part(path, 0), None), step=10, world_size=1, zero_stage=0, final=False
    )
    mark = checkpoint.read_complete(path)
    assert mark is not None and mark.sha256 is None and mark.files
    assert checkpoint.differences(path, mark) == []


def test_each_rank_flushes_and_reads_its_own_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers and DeepSpeed name them; those that name no rank are rank 0's."""
    parts = {
        0: ["model.safetensors", "trainer_state.json", "rng_state_0.pth", "s/mp_rank_00_model_states.pt",
            "s/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"],
        1: ["rng_state_1.pth", "s/zero_pp_rank_1_mp_rank_00_model_states.pt"],
        12: ["rng_state_12.pth", "s/bf16_zero_pp_rank_12_mp_rank_00_optim_states.pt"],
    }  # fmt: skip
    (tmp_path / "s").mkdir()
    for names in parts.values():
        for name in names:
            (tmp_path / name).write_bytes(name.encode())
    opened: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: opened.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    for rank, names in parts.items():
        opened.clear()
        assert checkpoint.sync_part(tmp_path, rank) == {name: len(name) for name in names}
        assert {name for name in opened if not Path(name).is_dir()} == {str(tmp_path / name) for name in names}
        assert sorted(checkpoint.digests_of_part(tmp_path, rank)) == sorted(names)
    assert checkpoint.sync_part(tmp_path, 2) == {}


def test_a_run_in_flight_at_an_upgrade_resumes_from_a_checkpoint_without_digests(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    path = make(checkpoint.checkpoints_dir(config), 10)
    mark = json.loads((path / checkpoint.COMPLETE_FILE).read_text())
    del mark["sha256"]
    (path / checkpoint.COMPLETE_FILE).write_text(json.dumps(mark))
    assert checkpoint.discard_changed(config) == []
    assert checkpoint.newest(config)[1].step == 10


def test_a_launcher_reports_which_checkpoints_it_does_not_use(tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path)
    directory = checkpoint.checkpoints_dir(config)
    make(directory, 10)
    change_byte(make(directory, 20) / "model.safetensors")
    pod = PodAttempt(config, require_plan(config).plan, Attempt(number=2), 0, StatusDir(tmp_path / "status"))
    pod.begin()
    assert pod.progress().checkpoint_step == 10
    assert pod.changes == pod.progress().changes
    assert pod.changes == ["the checkpoint of step 20 is not used: 'model.safetensors' has other content"]
