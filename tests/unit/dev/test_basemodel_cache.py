"""The base model's cache: whole or absent, broken ones built again, one build at a time."""

import threading
from pathlib import Path

import pytest

from dev import folders
from dev.basemodel import __main__ as command_line
from dev.basemodel import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "libraries_key", lambda: "0123456789ab")


class _Maker:
    """Writes two files, as pretraining would, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")


def _ignore(line: str) -> None:
    pass


def test_builds_once_and_is_found(tmp_path: Path) -> None:
    make = _Maker()
    assert cache.find() is None
    folder = cache.ensure(make, _ignore)
    assert folder == cache.ensure(make, _ignore) == cache.find()
    assert make.calls == 1
    assert folder.parent == tmp_path / "basemodel"


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "unrecorded", "no JSON"])
def test_a_broken_one_is_reported_and_built_again(harm: str) -> None:
    make, lines = _Maker(), list[str]()
    folder = cache.ensure(make, _ignore)
    match harm:
        case "changed":
            (folder / "model.safetensors").write_bytes(b"weighty")
        case "missing":
            (folder / "config.json").unlink()
        case "added":
            (folder / "other.json").write_text("{}")
        case "unrecorded":
            (folder / "COMPLETE.json").unlink()
        case "no JSON":
            (folder / "COMPLETE.json").write_text("{")
    assert cache.find() is None
    assert cache.ensure(make, lines.append) == folder
    assert make.calls == 2
    assert folders.intact(folder)
    assert any("broken" in line for line in lines)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.ensure(fail, _ignore)
    assert [path.name for path in (tmp_path / "basemodel").iterdir()] == [".lock"]


def test_the_remains_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    remains = tmp_path / "basemodel" / ".new-abc"
    remains.mkdir(parents=True)
    (remains / "half").write_text("half")
    folder = cache.ensure(_Maker(), _ignore)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}


def test_two_builds_at_once_make_one_model() -> None:
    make = _Maker()
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(cache.ensure(make, _ignore))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert make.calls == 1


def test_path_works_without_the_libraries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cache.ensure(_Maker(), _ignore)
    monkeypatch.setattr(cache, "libraries_key", lambda: None)
    assert command_line.main(["path"]) == 0
    assert capsys.readouterr().out.strip() == str(folder)


def test_path_says_what_to_do_if_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["path"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "python3 -m dev.basemodel build" in captured.err


def test_build_without_the_libraries_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "libraries_key", lambda: None)
    assert command_line.main(["build"]) == 1
    assert "torch" in capsys.readouterr().err
    assert cache.find() is None


def test_other_code_has_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.code_key()
    for name in cache._CODE:
        copy = tmp_path / "code" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((cache._ROOT / name).read_bytes())
    monkeypatch.setattr(cache, "_ROOT", tmp_path / "code")
    assert cache.code_key() == before
    for name in cache._CODE:
        copy = tmp_path / "code" / name
        whole = copy.read_bytes()
        copy.write_bytes(whole + b"\n")
        assert cache.code_key() != before, name
        copy.write_bytes(whole)
