"""The check before a server: it passes for what the job wrote, and says which file differs from it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_trainer import verify
from hone_trainer.artifact.difference import base_files
from hone_trainer.models.facts import model_digest, model_digests
from hone_trainer.protocol import manifest


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """The artifact's directory on its claim."""
    directory = tmp_path / "claim" / "artifact"
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"w" * 5000)
    (directory / "config.json").write_text("{}")
    return directory


@pytest.fixture
def check(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, str]]:
    """Checks the artifact against the digest that it has now; gives exit code and termination message."""
    digest, log = manifest.digest_of(manifest.list_files(artifact)), tmp_path / "term"
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(log))

    def run() -> tuple[int, str]:
        log.write_text("")
        return verify.main([str(artifact), digest]), log.read_text()

    return run


def write_report(artifact: Path) -> None:
    """What finish writes next to the artifact, as far as it matters here."""
    files = [file.to_dict() for file in manifest.list_files(artifact)]
    (artifact.parent / "report.json").write_text(json.dumps({"version": 1, "files": files}))


def test_what_the_job_wrote_passes(check: Callable[[], tuple[int, str]]) -> None:
    assert check() == (0, "")


def test_a_changed_byte_is_refused_though_the_size_is_the_same(
    artifact: Path, check: Callable[[], tuple[int, str]]
) -> None:
    with (artifact / "model.safetensors").open("r+b") as file:
        file.seek(4000)
        file.write(b"x")
    code, words = check()
    assert code == 64
    assert "its files have the digest sha256:" in words
    assert "instead of sha256:" in words


def test_a_link_is_refused(artifact: Path, check: Callable[[], tuple[int, str]]) -> None:
    (artifact / "vocab.txt").symlink_to("/proc/self/environ")
    assert check() == (64, "'vocab.txt' is a link")


def test_the_report_tells_which_file_differs(artifact: Path, check: Callable[[], tuple[int, str]]) -> None:
    write_report(artifact)
    (artifact / "config.json").write_text("[]")
    (artifact / "modeling.py").touch()
    code, words = check()
    assert code == 64
    assert words.endswith("'config.json' has other content; 'modeling.py' was added")


def test_a_report_that_was_changed_with_the_files_helps_nobody(
    artifact: Path, check: Callable[[], tuple[int, str]]
) -> None:
    (artifact / "config.json").write_text("[]")
    write_report(artifact)
    code, words = check()
    assert code == 64
    assert "config.json" not in words, "a report with another digest says nothing about the files that there were"


def test_a_directory_that_is_gone_is_refused(artifact: Path, check: Callable[[], tuple[int, str]]) -> None:
    artifact.rename(artifact.parent / "elsewhere")
    code, words = check()
    assert (code, "is no directory" in words) == (64, True)


def test_it_needs_no_library_of_training(artifact: Path) -> None:
    code = (
        "import sys; from hone_trainer import verify; "
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


@pytest.fixture
def base(artifact: Path, tmp_path: Path) -> Path:
    """The base of an adapter, and the job's report about both."""
    directory = tmp_path / "models" / "base"
    directory.mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "w" * 5000)):
        (directory / name).write_text(content)
        os.utime(directory / name, (1_000_000_000, 1_000_000_000))
    report = {
        "files": [file.to_dict() for file in manifest.list_files(artifact)],
        "baseFiles": [file.to_dict() for file in base_files(directory)],
    }
    (artifact.parent / "report.json").write_text(json.dumps(report))
    return directory


@pytest.fixture
def check_both(artifact: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Checks an adapter and its base against the digests that they have now."""
    digests, log = (manifest.digest_of(manifest.list_files(artifact)), model_digest(base)), tmp_path / "term"
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(log))

    def run() -> tuple[int, str]:
        log.write_text("")
        code = verify.main([str(artifact), digests[0], "--base", str(base), "--base-digest", digests[1]])
        return code, log.read_text()

    return run


def test_an_adapter_on_its_own_base_passes(check_both: Callable[[], tuple[int, str]]) -> None:
    assert check_both() == (0, "")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_byte_of_the_base_is_refused_and_its_file_is_named(
    base: Path, check_both: Callable[[], tuple[int, str]], name: str
) -> None:
    with (base / name).open("r+b") as file:
        file.write(b"x")
    code, words = check_both()
    assert code == 64
    assert "its base model is not the one that it was trained on" in words
    assert words.endswith(f": '{name}' was changed")


def test_a_changed_byte_under_the_old_time_is_refused_without_a_name(
    base: Path, check_both: Callable[[], tuple[int, str]]
) -> None:
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(2500)
        file.write(b"x")
    os.utime(base / "model.safetensors", (1_000_000_000, 1_000_000_000))
    code, words = check_both()
    assert (code, "model.safetensors" in words) == (64, False)


def test_the_provenance_names_a_file_of_the_base_whose_time_says_nothing(
    artifact: Path, base: Path, check_both: Callable[[], tuple[int, str]]
) -> None:
    files = [{"name": f"base/{n}", "digest": {"sha256": d}} for n, d in model_digests(base)[1].items()]
    statement = {"predicate": {"buildDefinition": {"resolvedDependencies": files}}}
    (artifact.parent / "provenance.json").write_text(json.dumps(statement))
    assert check_both() == (0, "")
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(2500)
        file.write(b"x")
    for path in base.iterdir():
        os.utime(path, (1, 1))
    code, words = check_both()
    assert code == 64
    assert words.endswith(": 'model.safetensors' was changed")


def test_a_base_that_was_only_copied_passes(base: Path, check_both: Callable[[], tuple[int, str]]) -> None:
    for path in base.iterdir():
        os.utime(path, (1, 1))
    assert check_both() == (0, "")


def test_a_base_that_is_gone_is_refused(base: Path, check_both: Callable[[], tuple[int, str]]) -> None:
    base.rename(base.parent / "elsewhere")
    code, words = check_both()
    assert (code, "its base model cannot be read" in words) == (64, True)
