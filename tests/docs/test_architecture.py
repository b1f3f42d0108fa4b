"""ARCHITECTURE.md names what exists: files, names in them, and the rooms of the layer contracts."""

import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.docs.support import ROOT

TEXT = (ROOT / "operator/ARCHITECTURE.md").read_text(encoding="utf-8")
ALIASES = {"hone/": "operator/src/hone/", "hone_trainer/": "trainer-image/src/hone_trainer/"}
PATHS = sorted(set(re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:toml|md)|Makefile)`", TEXT)))
NAMED = re.findall(r"`([\w./-]+\.(?:py|tpl))` \(([^)]*`[^)]*)\)", TEXT)
NOT_PATHS = ("hone.dev/inputs",)
MAX_FILES = 6
"""Files and folders that one change may name: more of them are one fact in several places."""
FILE = re.compile(r"`([\w./-]*/[\w./-]*|[\w.-]+\.(?:py|md|toml|tpl|yaml|json)|Makefile)`")
LAYERS = {
    container.replace(".", "/"): contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
    for container in contract["containers"]
}
"""The layers of each package, the highest first, as import-linter reads them."""


def real(path: str) -> str:
    """The path from the repository's root."""
    for alias, folder in ALIASES.items():
        if path.startswith(alias):
            return folder + path.removeprefix(alias)
    return path


def cells(section: str) -> Iterator[str]:
    """The cells of a section's tables."""
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for line in body.splitlines():
        if line.startswith("| "):
            yield from line.strip("| ").split(" | ")


def files_of(cell: str) -> set[str]:
    """The files and folders that a cell names."""
    return set(FILE.findall(cell)) - set(NOT_PATHS)


def layer_rooms(package: str, layer: str) -> set[str]:
    """The folders and files of a layer such as `(a) | (b)`; a module that does not exist has none."""
    names = (f"{package}/{name}" for name in re.findall(r"\w+", layer))
    paths = (path for name in names for path in (f"{name}/", f"{name}.py"))
    return {path for path in paths if (ROOT / real(path)).exists()}


def table_rooms(package: str) -> list[set[str]]:
    """The rooms of a package that the page's tables describe, row by row."""
    first_cells = re.findall(r"^\| (`[^|]*`) \| [^|\n]+ \| [^|\n]+ \|$", TEXT, re.MULTILINE)
    rows = [set(re.findall(r"`([^`]+)`", cell)) for cell in first_cells]
    return [row for row in rows if all(re.fullmatch(rf"{package}/\w+(/|\.py)", path) for path in row)]


@pytest.mark.parametrize("path", [path for path in PATHS if path not in NOT_PATHS])
def test_every_path_exists(path: str) -> None:
    assert (ROOT / real(path)).exists()


@pytest.mark.parametrize(("path", "names"), NAMED)
def test_every_name_is_in_its_file(path: str, names: str) -> None:
    text = (ROOT / real(path)).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.]+)`", names):
        assert re.search(rf"\b{re.escape(name)}\b", text), f"{path} has no {name}"


def test_there_are_paths_and_names_to_check() -> None:
    assert len(PATHS) > 100
    assert len(NAMED) > 100


def test_no_change_needs_more_than_six_files_or_folders() -> None:
    many = {cell[:60]: sorted(files) for cell in cells("Where do I add …") if len(files := files_of(cell)) > MAX_FILES}
    assert not many


def test_the_files_of_a_cell_are_counted() -> None:
    cell = "a `Row` in `hone/a.py` (`A`), `hone/b/`, `README.md` and `pyproject.toml`; again `hone/a.py` (`x.y`)"
    assert files_of(cell) == {"hone/a.py", "hone/b/", "README.md", "pyproject.toml"}
    assert sum(len(files_of(each)) > 1 for each in cells("Where do I add …")) > 50


@pytest.mark.parametrize("package", LAYERS)
def test_the_rooms_of_a_package_are_described_layer_by_layer(package: str) -> None:
    expected = [rooms for layer in LAYERS[package] if (rooms := layer_rooms(package, layer))]
    assert table_rooms(package) == expected
    assert len(expected) > 3
