"""Reading JSONL: which files a path stands for, and their rows with the place each came from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_trainer.errors import BadInput

_MAX_LISTED = 10

# What people put where JSONL is asked for, by its first bytes.
_OTHER_KINDS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip archive",
    b"ARROW1": "an Arrow file",
    b"[": "one JSON array",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


@dataclass(frozen=True)
class Source:
    """One of the user's data sets.

    Attributes:
        name: train, validation or test.
        files: its files in the order in which they are read.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def field(self) -> str:
        """The spec's field that names this data set."""
        return f"spec.dataset.{self.name}"


class RowFault(Exception):
    """A row cannot be used. Its text is the reason, the same for every row with this fault."""


def find_source(name: str, path: str) -> Source:
    """The files of a path: itself, or a directory's `*.jsonl` (all its files where none is named so), by name.

    Raises:
        BadInput: there is no such path, no file in it, or what lies there is another kind of file.
    """
    root = Path(path)
    field = f"spec.dataset.{name}"
    if not root.exists():
        raise BadInput(field, f"{path} does not exist{_siblings(root)}", "Give the path of a JSONL file.")
    if root.is_file():
        files = [root]
    else:
        # A ConfigMap's volume keeps its files in hidden directories (`..data`) and links to them.
        visible = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
        files = [p for p in visible if p.suffix == ".jsonl"] or visible
    if not files:
        raise BadInput(field, f"the directory {path} holds no file", "Put a JSONL file there, one object per line.")
    for file in files:
        _refuse_other_kinds(field, file)
    return Source(name, tuple(files))


def rows(source: Source) -> Iterator[tuple[str, dict[str, Any] | RowFault]]:
    """Every row of a source that is not blank: its place as `file:line`, and its object or what is wrong with it."""
    for file in source.files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield f"{file.name}:{number}", _parse(line)


def _parse(line: bytes) -> dict[str, Any] | RowFault:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return RowFault("not UTF-8")
    except (ValueError, RecursionError):
        return RowFault("not JSON: each line must be one JSON object")
    return value if isinstance(value, dict) else RowFault("not a JSON object: each line must be {...}")


def _refuse_other_kinds(field: str, file: Path) -> None:
    with file.open("rb") as stream:
        start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, kind in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise BadInput(field, f"{file.name} is {kind}", "Give JSONL: UTF-8 text with one JSON object per line.")


def _siblings(path: Path) -> str:
    """What lies in the nearest directory that exists, for an error message."""
    parent = next(p for p in path.parents if p.is_dir())
    names = sorted(p.name + "/" * p.is_dir() for p in parent.iterdir() if not p.name.startswith("."))
    listed = ", ".join(names[:_MAX_LISTED]) + (" …" if len(names) > _MAX_LISTED else "")
    return f"; {parent} holds {listed or 'nothing'}"
