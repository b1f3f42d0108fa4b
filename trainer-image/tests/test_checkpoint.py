"""Checkpoints: what counts as whole, which is resumed from, what is removed."""

import os
from pathlib import Path

import pytest

from hone_trainer import checkpoint


def make(directory: Path, step: int, *, whole: bool = True, final: bool = False) -> Path:
    """A checkpoint of two files."""
    path = checkpoint.checkpoint_dir(directory, step)
    (path / "global_step").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"w" * step)
    (path / "global_step" / "shard.pt").write_bytes(b"s")
    if whole:
        checkpoint.complete(path, step=step, world_size=2, zero_stage=2, final=final)
    return path


def steps(directory: Path) -> list[int]:
    """Steps of all checkpoint directories, whole or not."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in directory.glob("checkpoint-*"))


def test_newest_is_by_step_and_not_by_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make(tmp_path, step)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0].name == "checkpoint-100"
    assert found[1].world_size == 2
    assert found[1].zero_stage == 2


def test_half_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    make(tmp_path, 10)
    make(tmp_path, 20, whole=False)
    assert checkpoint.newest(tmp_path)[0].name == "checkpoint-10"


def test_checkpoint_with_a_cut_or_missing_file_is_not_whole(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (make(tmp_path, 20) / "model.safetensors").write_bytes(b"short")
    (make(tmp_path, 30) / "global_step" / "shard.pt").unlink()
    (make(tmp_path, 40) / checkpoint.COMPLETE_FILE).write_text('{"step": 4')
    assert [found.step for _, found in checkpoint.whole(tmp_path)] == [10]


def test_the_mark_and_its_name_outlive_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    path = make(tmp_path, 5)
    assert any("COMPLETE.json" in name for name in synced)
    assert synced[-1] == str(path), "the directory comes last, once the mark has its name"


def test_no_checkpoints_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None
    assert checkpoint.prune(tmp_path, 2) == []


def test_only_a_final_checkpoint_ends_a_run(tmp_path: Path) -> None:
    make(tmp_path, 10)
    assert checkpoint.final_checkpoint(tmp_path) is None
    make(tmp_path, 20, final=True)
    assert checkpoint.final_checkpoint(tmp_path)[1].step == 20


def test_training_arguments_do_not_stay(tmp_path: Path) -> None:
    path = make(tmp_path, 10, whole=False)
    (path / "training_args.bin").write_bytes(b"hub token in clear")
    mark = checkpoint.complete(path, step=10, world_size=1, zero_stage=0, final=False)
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


def test_discard_half_clears_the_way_but_never_a_whole_one(tmp_path: Path) -> None:
    half, good = make(tmp_path, 10, whole=False), make(tmp_path, 20)
    checkpoint.discard_half(half)
    checkpoint.discard_half(good)
    assert steps(tmp_path) == [20]
