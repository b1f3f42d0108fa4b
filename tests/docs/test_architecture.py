"""ARCHITECTURE.md names files and names that exist, and every file that a decision may live in is reachable from it."""

import re

import pytest

from tests.docs.support import ROOT

TEXT = (ROOT / "operator/ARCHITECTURE.md").read_text(encoding="utf-8")
ALIASES = {"hone/": "operator/src/hone/", "hone_trainer/": "trainer-image/src/hone_trainer/"}
PATHS = sorted(set(re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.toml|Makefile)`", TEXT)))
NAMED = re.findall(r"`([\w./-]+\.(?:py|tpl))` \(([^)]*`[^)]*)\)", TEXT)


def real(path: str) -> str:
    """The path from the repository's root."""
    for alias, folder in ALIASES.items():
        if path.startswith(alias):
            return folder + path.removeprefix(alias)
    return path


@pytest.mark.parametrize("path", [path for path in PATHS if path != "hone.dev/inputs"])
def test_every_path_exists(path: str) -> None:
    assert (ROOT / real(path)).exists()


@pytest.mark.parametrize(("path", "names"), NAMED)
def test_every_name_is_in_its_file(path: str, names: str) -> None:
    text = (ROOT / real(path)).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.]+)`", names):
        assert re.search(rf"\b{re.escape(name)}\b", text), f"{path} has no {name}"


def test_there_are_paths_and_names_to_check() -> None:
    assert len(PATHS) > 60
    assert len(NAMED) > 30
