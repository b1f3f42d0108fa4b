"""The manifest of a directory: what its digest covers, and that no change of the directory goes unseen."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hone_trainer.protocol import manifest

Attack = Callable[[Path], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with weights, a configuration, and a file one level below."""
    artifact = tmp_path / "artifact"
    (artifact / "templates").mkdir(parents=True)
    (artifact / "model.safetensors").write_bytes(bytes(range(256)) * 9000)
    (artifact / "config.json").write_text("{}")
    (artifact / "templates" / "tool.jinja").write_text("{{ messages }}")
    (tmp_path / "secret").write_text("{}")
    return artifact


def _change_byte(directory: Path) -> None:
    with (directory / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff")


def _replace_by_link(directory: Path) -> None:
    (directory / "config.json").unlink()
    # The same content: only the link is wrong.
    (directory / "config.json").symlink_to(directory.parent / "secret")


def _replace_directory_by_link(directory: Path) -> None:
    (directory / "templates").rename(directory.parent / "templates")
    (directory / "templates").symlink_to(directory.parent / "templates")


def _replace_all_by_link(directory: Path) -> None:
    directory.rename(directory.parent / "elsewhere")
    directory.symlink_to(directory.parent / "elsewhere")


ATTACKS: dict[str, tuple[Attack, str]] = {
    "changed byte": (_change_byte, "'model.safetensors' has other content"),
    "cut file": (lambda at: os.truncate(at / "model.safetensors", 9), "has 9 bytes instead of 2304000"),
    "added file": (lambda at: (at / "modeling.py").write_text("import os"), "'modeling.py' was added"),
    "added file below": (lambda at: (at / "templates" / "x").touch(), "'templates/x' was added"),
    "removed file": (lambda at: (at / "config.json").unlink(), "'config.json' is missing"),
    "renamed file": (lambda at: (at / "config.json").rename(at / "Config.json"), "'Config.json' was added"),
    "link to a file": (_replace_by_link, "'config.json' is a link"),
    "added link": (lambda at: (at / "l").symlink_to("config.json"), "'l' is a link"),
    "link to a directory": (_replace_directory_by_link, "'templates' is a link"),
    "link of the whole": (_replace_all_by_link, "is no directory"),
    "named pipe": (lambda at: os.mkfifo(at / "vocab.txt"), "'vocab.txt' is no regular file"),
    "name with two lines": (lambda at: (at / "a\nb").touch(), "'a\\nb' is a name with control characters"),
    "name that is no text": (lambda at: Path(os.fsdecode(bytes(at) + b"/\xff")).touch(), "is no name in UTF-8"),
}


@pytest.mark.parametrize(("attack", "words"), ATTACKS.values(), ids=ATTACKS)
def test_no_change_goes_unseen(directory: Path, attack: Attack, words: str) -> None:
    files = manifest.list_files(directory)
    assert manifest.differences(directory, files) == []
    attack(directory)
    problems = manifest.differences(directory, files)
    assert words in manifest.in_words(problems)
    assert manifest.in_words(problems).isprintable()


def test_the_digest_is_what_sha256sum_prints(directory: Path) -> None:
    command = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum"
    printed = subprocess.run(["bash", "-c", command], cwd=directory, check=True, capture_output=True).stdout
    assert manifest.digest_of(manifest.list_files(directory)) == "sha256:" + hashlib.sha256(printed).hexdigest()


def test_one_name_cannot_stand_for_two_files(directory: Path) -> None:
    first, second, *_ = manifest.list_files(directory)
    forged = first.model_copy(update={"path": f"{first.path}\n{second.sha256}  {second.path}"})
    assert manifest.digest_of([first, second]) == manifest.digest_of([forged]), "so a directory must not have this name"
    with pytest.raises(manifest.NoRegularFile):
        (directory / "a\nb").touch()
        manifest.list_files(directory)


def test_many_differences_are_counted(directory: Path) -> None:
    for index in range(9):
        (directory / f"extra-{index}").touch()
    problems = manifest.differences(directory, manifest.list_files(directory)[:0])
    assert manifest.in_words(problems).endswith("; and 9 more")


def test_nothing_at_all_differs_from_something(directory: Path, tmp_path: Path) -> None:
    files = manifest.list_files(directory)
    assert "is no directory" in manifest.in_words(manifest.differences(tmp_path / "absent", files))
