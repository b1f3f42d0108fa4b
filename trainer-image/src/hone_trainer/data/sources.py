"""Which files a data set is: a path's own, a directory's, a glob's, or those of a folder that `datasets` saved."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hone.contract.settings import DataFormat
from hone_trainer.data.kinds import PROSE_SUFFIX, REMEDY, DataFile, data_file, suffix_of
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import locate, open_file, shown

_MAX_LISTED = 10
_MAX_LIST_BYTES = 16 << 20
_WILDCARDS = frozenset("*?[")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""The words in names of files that tell whose split they are, as `datasets` reads them."""
NOTES = re.compile(
    r"(readme|licen[sc]e|citation|changelog)(\.(md|txt|rst|cff))?|dataset_(infos?|dict)\.json", re.IGNORECASE
)
"""Files next to data that hold no rows."""


@dataclass(frozen=True)
class Part:
    """What makes a data set one of several whose rows are mixed.

    Attributes:
        name: the user's name of it.
        index: its place in the spec's list.
        weight: how often a training row is used in one epoch.
        max_rows: most rows that are used; None: all.
    """

    name: str
    index: int
    weight: float = 1.0
    max_rows: int | None = None


@dataclass(frozen=True)
class Source:
    """One of the user's data sets.

    Attributes:
        name: train, validation or test.
        files: its files in the order in which they are read.
        columns: the rows' own names of columns by Hone's, where they differ.
        drop_reasoning: whether the reasoning of answers is removed.
        roles: Hone's roles by the names that messages have for them, where they differ.
        part: what makes it one of several sources of training rows; None: it is the only one.
        format: of its rows; None: that of the other sources.
        system_prompt: the system message of conversations that have none.
        group_by: the rows' own name of the column by whose values test rows are scored separately; None: there is none.
        unread: files of its directory that are no part of it, by name.
        named_by: the spec's field that names it; None: the one of spec.dataset with its name.
    """

    name: str
    files: tuple[DataFile, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    drop_reasoning: bool = False
    system_prompt: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    part: Part | None = None
    format: DataFormat | None = None
    group_by: str | None = None
    named_by: str | None = None

    @property
    def field(self) -> str:
        """The spec's field that names this data set."""
        return self.named_by or f"spec.dataset.{self.place}"

    @property
    def place(self) -> str:
        """The same below spec.dataset."""
        return f"{self.name}.sources[{self.part.index}]" if self.part else self.name


def find_source(
    name: str,
    path: str,
    *,
    mount: Path | None = None,
    columns: Mapping[str, str] | None = None,
    part: Part | None = None,
    named_by: str | None = None,
) -> Source:
    """The files of a path, by name.

    A directory stands for its files with a suffix of data, which must be the same, or, where none has one, for all its
    files; hidden ones and notes such as a README never count. One that has only a directory stands for that. If names
    of files tell splits, as `train-00000-of-00001` does, it stands for those of this data set's name. A glob (`*`, `?`,
    `[…]`, `**`) stands for the files that it matches, each read by its own kind. A folder that `Dataset.save_to_disk`
    wrote stands for its rows in their order, that of a DatasetDict for its split of this data set's name.

    Args:
        name: train, validation or test.
        path: a file, a directory or a glob.
        mount: the directory that all files must lie in, whatever links say; None: they may lie anywhere.
        columns, part, named_by: see `Source`.

    Raises:
        BadInput: there is no such path, no file in it, none that may be read, or what lies there holds no rows.
    """
    where, volume = Source(name, (), part=part, named_by=named_by).field, mount or Path("/")
    try:
        # Before anything is listed or read; each file is located again when it is opened.
        locate(_base(Path(path)), "", where, volume)
        base, files, unread = _files(where, name, path, volume)
        data_files = [data_file(where, file, shown(file.relative_to(base).as_posix()), volume) for file in files]
    except PermissionError as error:
        raise BadInput(
            where,
            f"{error.filename or path} may not be read by the pod's user",
            "Let all users read the directory and enter it (chmod a+rx).",
        ) from error
    others = tuple(shown(file.name) for file in unread)
    return Source(name, tuple(data_files), columns or {}, others, part=part, named_by=named_by)


def _base(path: Path) -> Path:
    """The part of a path before its first wildcard."""
    first = next((i for i, part in enumerate(path.parts) if _WILDCARDS & set(part)), None)
    return path if first is None or path.exists() else Path(*path.parts[:first])


def _files(where: str, name: str, path: str, volume: Path) -> tuple[Path, list[Path], list[Path]]:
    """The directory that names are relative to, the files that a path stands for, and those of its directory that are
    no part of it."""
    root = Path(path)
    if root.is_file():
        return root.parent, [root], []
    if root.is_dir():
        return _in_directory(where, name, root, volume)
    if _WILDCARDS & set(path) and not root.exists():
        return *_matches(where, root), []
    if root.exists():
        raise BadInput(where, f"{path} is neither a file nor a directory", REMEDY)
    raise BadInput(
        where, f"{path} does not exist{_siblings(root)}", "Use the path of an existing file or directory, or a glob."
    )


def _in_directory(
    where: str, name: str, root: Path, volume: Path, *, nested: bool = True
) -> tuple[Path, list[Path], list[Path]]:
    """What `_files` returns, of a directory; `nested`: or of the only one in it, if it has no file itself."""
    if (root / "dataset_dict.json").is_file():
        splits = _listed(where, root / "dataset_dict.json", volume, "splits")
        if name not in splits:
            raise BadInput(
                where,
                f"the saved DatasetDict {root.name} has no split {name}; it has {', '.join(splits) or 'none'}",
                f"Use the directory of one split, such as {root.name}/{splits[0] if splits else name}.",
            )
        root = root / name
    if (root / "state.json").is_file():
        listed = _listed(where, root / "state.json", volume, "_data_files", "filename")
        files = [root / Path(file).name for file in listed]
        if missing := [file.name for file in files if not file.is_file()]:
            raise BadInput(
                where, f"the saved data set {root.name} lacks its file {missing[0]}", "Copy the whole directory."
            )
        return root.parent, files, []
    # A ConfigMap's volume keeps its files in hidden directories (`..data`) and links to them.
    there = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    visible = [p for p in there if not NOTES.fullmatch(p.name)]
    directories = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not visible and len(directories) == 1 and nested:
        # A repository of a hub: its files lie in data/, next to a README.
        locate(directories[0], "", where, volume)
        return _in_directory(where, name, directories[0], volume, nested=False)
    if not visible:
        below = _siblings(root / "x")
        raise BadInput(
            where,
            f"the directory {root} holds no file{below}",
            f"{REMEDY} For files in its subdirectories, use a glob: **/*.",
        )
    files = _of_split(where, name, root, _of_one_kind(where, root, visible))
    return root, files, [p for p in there if p not in files]


def _of_split(where: str, name: str, root: Path, files: list[Path]) -> list[Path]:
    """Of a directory's files, those whose names tell this split; all where none tells one."""
    splits = {file: _split_of(file) for file in files}
    named = [split for split in splits.values() if split]
    if not named or len(files) == 1:
        return files
    own = [file for file, split in splits.items() if split == name]
    others = [file for file, split in splits.items() if not split]
    if own and not others:
        return own
    if not own and {*named} == {"train"} and name != "train" and not others:
        # A directory of its own for test or validation rows, in which files are named after what they are part of.
        return files
    problem = f"{others[0].name} names none" if others else f"none of them names {name}"
    raise BadInput(
        where,
        f"names of files in the directory {root.name} tell splits, such as {next(f.name for f in files if splits[f])}, "
        f"but {problem}",
        f"Select the files with a glob, such as {root.name}/{(others or files)[0].name}.",
    )


def _split_of(file: Path) -> str | None:
    """The split that a file's name tells; None if it tells none or several."""
    words = re.split(r"[^a-z]+", file.name.lower())
    named = {SPLITS[word] for word in words if word in SPLITS}
    return named.pop() if len(named) == 1 else None


def _of_one_kind(where: str, root: Path, files: list[Path]) -> list[Path]:
    """Of a directory's files, those with a suffix of data; all where none has one."""
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        if suffix := suffix_of(file):
            by_suffix.setdefault(suffix, []).append(file)
    if len(by_suffix) > 1:
        # Notes next to the rows.
        by_suffix.pop(PROSE_SUFFIX, None)
    if len(by_suffix) > 1:
        # Most often these are the same rows in several kinds, or notes next to the rows: reading all would be wrong.
        kinds = ", ".join(f"{len(same)} {suffix}" for suffix, same in by_suffix.items())
        most = max(by_suffix, key=lambda suffix: sum(file.stat().st_size for file in by_suffix[suffix]))
        raise BadInput(
            where,
            f"the directory {root.name} holds files of several kinds: {kinds}",
            f"Select the files with a glob, such as {root.name}/*{most}.",
        )
    return next(iter(by_suffix.values()), files)


def _matches(where: str, pattern: Path) -> tuple[Path, list[Path]]:
    """The files that a glob matches, and the directory that it begins in."""
    base = _base(pattern)
    try:
        matches = sorted(base.glob(str(pattern.relative_to(base)))) if base.is_dir() else []
    except ValueError as error:
        raise BadInput(
            where, f"{pattern} is not a valid glob: {error}", "Write ** as a whole part of the path: **/*.csv."
        ) from error
    visible = [p for p in matches if not any(part.startswith(".") for part in p.relative_to(base).parts)]
    files = [p for p in visible if p.is_file()]
    if not files:
        problem = "matches only directories" if visible else "matches no file"
        raise BadInput(
            where,
            f"{pattern} {problem}{_siblings(pattern if not base.is_dir() else base / 'x')}",
            "Fix the glob: * stands for any part of a name, **/ for any directories.",
        )
    return base, files


def _listed(where: str, path: Path, volume: Path, key: str, part: str | None = None) -> list[str]:
    """The names that a JSON file of `datasets` lists under a key."""
    try:
        with open_file(path.parent, path.name, where, volume) as file:
            listed = json.loads(file.read(_MAX_LIST_BYTES))[key]
        return [str(item[part] if part else item) for item in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(where, f"{path.parent.name}/{path.name} lists no {key}", "Save the data set again.") from error


def _siblings(path: Path) -> str:
    """What lies in the nearest directory that exists, for an error message."""
    parent = next(p for p in path.parents if p.is_dir())
    names = sorted(p.name + "/" * p.is_dir() for p in parent.iterdir() if not p.name.startswith("."))
    listed = ", ".join(names[:_MAX_LISTED]) + (" …" if len(names) > _MAX_LISTED else "")
    return f"; {parent} holds {listed or 'nothing'}"
