"""Room on a volume that jobs share: the oldest goes first, and nothing that a job reads which has not ended."""

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from hone.contract.runconfig import SharedVolume
from hone_trainer.protocol import shared

OURS, OTHER, LATER = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "abc")
KIB = 1024


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No volume is shared when a test begins or ends."""
    shared.join("", [])
    yield
    shared.join("", [])


def volume(path: Path, limit: int | None = 0, runs: list[str] | None = None, **fields: Any) -> SharedVolume:
    """The volume, with jobs listed two hours ago: what they used before that is not recent."""
    return SharedVolume(path=str(path), limit_bytes=limit, runs=runs or [], **{"as_of": time.time() + 7200, **fields})


def entry(path: Path, name: str, age: float = 9000.0, size: int = KIB) -> Path:
    """An entry of a room that was used `age` seconds ago."""
    directory, aside = path / name, path / "aside"
    aside.mkdir(parents=True)
    marker = "prepared.json" if name.startswith("prepared/") else "MANIFEST.json"
    (aside / marker).write_text("")
    (aside / "content").write_bytes(b"x" * size)
    os.utime(aside, (time.time() - age,) * 2)
    directory.parent.mkdir(exist_ok=True)
    return aside.rename(directory)


def digest(digit: str, room: str = "prepared") -> str:
    return f"{room}/{digit * 64}" if room == "prepared" else f"{room}/hub-{digit * 16}"


def marked(path: Path, run: str, *entries: Path, age: float = 9000.0) -> None:
    """Marks of a run that it made `age` seconds ago, without changing when its entries were used."""
    uses = path / ".hone" / "uses" / run
    uses.mkdir(parents=True, exist_ok=True)
    for each in entries:
        (uses / f"{each.parent.name}--{each.name}").touch()
    os.utime(uses, (time.time() - age,) * 2)


def make_room(path: Path, needed: int = 0, **fields: Any) -> None:
    shared.join(OURS, [volume(path, **fields)])
    shared.make_room(path / "models", needed)


def test_what_was_used_least_recently_goes_first_and_no_more_than_is_needed(tmp_path: Path) -> None:
    old, older, new = (entry(tmp_path, digest(digit), age) for digit, age in (("1", 200), ("2", 300), ("3", 100)))
    make_room(tmp_path, limit=2 * KIB)
    assert [path.exists() for path in (old, older, new)] == [True, False, True]
    make_room(tmp_path, limit=2 * KIB, needed=KIB)
    assert [path.exists() for path in (old, older, new)] == [False, False, True]


def test_to_use_an_entry_makes_it_the_newest(tmp_path: Path) -> None:
    first, second = entry(tmp_path, digest("1"), 300), entry(tmp_path, digest("2"), 200)
    shared.join(OURS, [volume(tmp_path)])
    shared.use(first)
    shared.join(OTHER, [volume(tmp_path, limit=KIB)])
    shared.make_room(tmp_path, 0)
    assert first.exists()
    assert not second.exists()


def test_nothing_is_removed_without_a_limit_while_the_volume_has_room(tmp_path: Path) -> None:
    path = entry(tmp_path, digest("1"))
    make_room(tmp_path, limit=None, needed=KIB)
    assert path.exists()


def test_room_is_made_on_a_volume_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = entry(tmp_path, digest("1"), 200), entry(tmp_path, digest("2"), 100)
    monkeypatch.setattr(shared.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    make_room(tmp_path, limit=None, needed=KIB)
    assert not old.exists()
    assert new.exists()


def test_what_a_job_reads_that_has_not_ended_stays_whatever_the_limit_is(tmp_path: Path) -> None:
    own, prepared, download = (entry(tmp_path, name) for name in (digest("1"), digest("2"), digest("3", "models")))
    marked(tmp_path, OURS, own)
    marked(tmp_path, OTHER, prepared, download)
    unread = entry(tmp_path, digest("4"), age=0)
    make_room(tmp_path, runs=[OTHER])
    assert own.exists()
    assert prepared.exists()
    assert download.exists()
    assert not unread.exists()


def test_what_only_jobs_read_that_have_ended_goes_with_their_marks(tmp_path: Path) -> None:
    prepared = entry(tmp_path, digest("1"))
    marked(tmp_path, OTHER, prepared)
    make_room(tmp_path)
    assert not prepared.exists()
    assert not (tmp_path / ".hone" / "uses" / OTHER).exists()


def test_a_job_that_came_after_the_list_keeps_what_it_reads(tmp_path: Path) -> None:
    prepared, own = entry(tmp_path, digest("1")), entry(tmp_path, f"models/{LATER}-model", age=0)
    marked(tmp_path, LATER, prepared, age=0)
    make_room(tmp_path, as_of=time.time() - 60)
    assert prepared.exists()
    assert own.exists()


def test_clocks_may_differ(tmp_path: Path) -> None:
    prepared = entry(tmp_path, digest("1"))
    marked(tmp_path, LATER, prepared, age=600)  # by a clock that is ten minutes slow
    make_room(tmp_path, as_of=time.time())
    assert prepared.exists()


def test_a_job_prepared_by_an_older_release_keeps_all_that_jobs_share(tmp_path: Path) -> None:
    prepared, gone = entry(tmp_path, digest("1")), entry(tmp_path, f"models/{LATER}-model")
    make_room(tmp_path, planned=[OTHER])  # it has a plan, and no marks
    assert prepared.exists()
    assert not gone.exists()
    marked(tmp_path, OTHER)
    make_room(tmp_path, planned=[OTHER])
    assert not prepared.exists()


def test_hard_links_count_once_and_free_nothing_while_another_has_the_file(tmp_path: Path) -> None:
    common, other = entry(tmp_path, digest("1", "models"), size=8 * KIB), entry(tmp_path, digest("2"))
    own = tmp_path / "models" / f"{OTHER}-model"
    own.mkdir()
    (own / "MANIFEST.json").write_text("")
    os.link(common / "content", own / "content")
    os.utime(own, (0, 0))
    make_room(tmp_path, limit=9 * KIB, runs=[OTHER])
    assert other.exists()  # 8 + 1 KiB: the link is no second file
    marked(tmp_path, LATER, common, age=0)
    make_room(tmp_path, limit=8 * KIB, as_of=time.time())
    assert not own.exists()
    assert not other.exists()  # removing the links alone was not enough
    assert common.exists()


def test_directories_of_jobs_are_no_entries_whatever_their_namespace_is_called(tmp_path: Path) -> None:
    job = tmp_path / "models" / ("a" * 16) / OTHER
    job.mkdir(parents=True)
    (job / "plan.json").write_text("{}")
    surveys = tmp_path / "prepared" / "surveys"
    surveys.mkdir(parents=True)
    make_room(tmp_path, needed=1 << 60)
    assert (job / "plan.json").exists()
    assert surveys.exists()


def test_links_are_never_followed(tmp_path: Path) -> None:
    outside = entry(tmp_path / "outside", digest("1"))
    inside = tmp_path / "volume" / "prepared"
    inside.mkdir(parents=True)
    (inside / ("2" * 64)).symlink_to(outside)
    make_room(tmp_path / "volume")
    assert (inside / ("2" * 64)).is_symlink()
    assert (outside / "content").exists()


def test_without_locks_nothing_is_removed_and_marks_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    path = entry(tmp_path, digest("1"))
    monkeypatch.setattr(shared.fcntl, "flock", refuse)
    make_room(tmp_path)
    assert path.exists()
    shared.use(path)
    assert [mark.name for mark in (tmp_path / ".hone" / "uses" / OURS).iterdir()] == [f"prepared--{path.name}"]


def test_a_job_is_scored_again_only_while_what_it_reads_is_there(tmp_path: Path) -> None:
    prepared = entry(tmp_path, digest("1"))
    assert shared.use_again(OTHER, tmp_path, [prepared])
    assert not (tmp_path / ".hone").exists()  # a volume that is not shared
    marked(tmp_path, OTHER, prepared)
    assert shared.use_again(OTHER, tmp_path, [prepared])
    make_room(tmp_path, as_of=time.time())  # by a list in which that job has ended
    assert prepared.exists()
    make_room(tmp_path)
    assert not shared.use_again(OTHER, tmp_path, [prepared])


ROUNDS = 150


def _remove_all(path: Path, pipe: Connection) -> None:
    """Remove what no job needs, once the other end says so, again and again, and say so after each time."""
    pipe.recv()
    shared.join(OURS, [volume(path, runs=[OTHER])])
    while not pipe.poll():
        shared.make_room(path, 0)
        with suppress(BrokenPipeError):
            pipe.send(None)


def test_no_directory_is_lost_by_a_process_that_uses_it(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_remove_all, args=(tmp_path, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.send(None)
    lost = 0
    try:
        for number in range(ROUNDS):
            path = entry(tmp_path, f"prepared/{number:064x}")
            shared.join(OTHER, [volume(tmp_path)])
            shared.use(path)
            there = path.exists()
            for _ in range(2):  # the second time began after the mark was made
                ours.recv()
            while ours.poll():
                ours.recv()
            lost += there and not (path / "content").exists()
            if number % 2:
                (tmp_path / ".hone" / "uses" / OTHER / f"prepared--{path.name}").unlink()
    finally:
        ours.send(None)
        ours.close()
    process.join(10)
    assert process.exitcode == 0
    assert lost == 0
    left = [path.name for path in (tmp_path / "prepared").iterdir()]
    assert len(left) < ROUNDS  # the other process did remove some


def test_entries_are_chosen_and_renamed_while_no_mark_can_be_made(tmp_path: Path) -> None:
    path = entry(tmp_path, digest("1"))
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_remove_all, args=(tmp_path, theirs), daemon=True)
    process.start()
    with shared._locked(volume(tmp_path)):
        ours.send(None)
        assert not ours.poll(0.5)
        assert path.exists()
    assert ours.poll(10)
    assert not path.exists()
    ours.send(None)
    process.join(10)
    assert process.exitcode == 0


def test_a_job_that_uses_nothing_has_marks_as_well(tmp_path: Path) -> None:
    path = entry(tmp_path, digest("1"))
    shared.join(OTHER, [volume(tmp_path)])
    make_room(tmp_path, planned=[OTHER])
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_volume_without_room_for_a_directory_room_is_made_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, mkdir = entry(tmp_path, digest("1")), Path.mkdir
    marked(tmp_path, OTHER, path)

    def full(directory: Path, *arguments: Any, **options: Any) -> None:
        if path.exists() and not directory.exists():
            raise OSError(number, "no room")
        mkdir(directory, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(shared.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0})())
    shared.join(OURS, [volume(tmp_path, limit=None)])
    assert not path.exists()
    assert (tmp_path / ".hone" / "uses" / OURS).is_dir()


def test_a_job_that_is_scored_again_on_a_full_volume_removes_nothing_that_another_has_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, unread, mkdir = entry(tmp_path, digest("1")), entry(tmp_path, digest("2")), Path.mkdir
    marked(tmp_path, OTHER, read)  # it trains since hours

    def full(directory: Path, *arguments: Any, **options: Any) -> None:
        if unread.exists() and not directory.exists():
            raise OSError(errno.ENOSPC, "no room")
        mkdir(directory, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(shared.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0})())
    shared.use_again(OURS, tmp_path, [])
    assert read.exists()
    assert (tmp_path / ".hone" / "uses" / OTHER / f"prepared--{read.name}").exists()
    assert not unread.exists()


def test_an_entry_is_removed_again_although_a_pod_that_was_killed_has_left_it_half_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.os, "getpid", lambda: 1)  # as in every pod
    with monkeypatch.context() as killed:
        killed.setattr(shared.shutil, "rmtree", lambda *_, **__: None)
        entry(tmp_path, digest("1"), age=100)
        make_room(tmp_path)
    again, other = entry(tmp_path, digest("1"), age=100), entry(tmp_path, digest("2"), age=50)
    make_room(tmp_path)
    assert not again.exists()
    assert not other.exists()


def test_the_list_of_jobs_fits_into_a_variable() -> None:
    full = volume(Path("/mnt/workspace"), runs=[OTHER] * 1000)
    assert len(json.dumps(full.to_dict())) < 128 * KIB
