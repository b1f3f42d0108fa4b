"""Which files of a repository are the rows of a split: by its README's `configs`, else by the names of files.

Nothing of the repository is run. A loading script is refused.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from hone.contract.runconfig import Download
from hone_trainer.data.kinds import suffix_of
from hone_trainer.data.sources import NOTES, SPLITS
from hone_trainer.protocol.errors import BadInput, clip

PARQUET_REVISION = "refs/convert/parquet"
"""The branch on which the Hub has most data sets as Parquet files, also those with loading scripts."""
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}\..+")
_CONVERTED = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+)/\d{4}\.parquet")
_DEFAULT = "default"
_MAX_PATTERN, _MAX_PATTERNS, _MAX_SHOWN = 256, 200, 12


def rows_of(download: Download, names: list[str], configs: Any) -> list[str]:
    """The files with the rows of a split.

    Args:
        download: the data set, with configuration and split.
        names: all files of the repository.
        configs: `configs` of its README's metadata; None: it has none.

    Raises:
        BadInput: it has no such configuration or split, or no files with rows.
    """
    files = sorted(name for name in names if _has_rows(name))
    if not files:
        _refuse_without_rows(download, names)
    has_card = isinstance(configs, list) and bool(configs)
    splits = _by_card(download, files, configs) if has_card else _by_names(download, files)
    split = download.split or _split_of_field(download.field)
    rows = splits.get(split, [])
    if not rows:
        raise BadInput(
            f"{download.field}.split",
            f"{download.uri} has no split {split!r}; it has {_listed(splits)}",
            "Set split to one of them.",
        )
    return _of_one_kind(rows)


def _has_rows(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") and part != ".." for part in path.parts)
    return not hidden and suffix_of(path) is not None and not NOTES.fullmatch(path.name)


def _split_of_field(field: str) -> str:
    """The split that a field of the spec asks for: `spec.dataset.train.sources[0]` for train."""
    return field.removeprefix("spec.dataset.").partition(".")[0]


def _refuse_without_rows(download: Download, names: list[str]) -> None:
    field = f"{download.field}.revision"
    remedy = f"Set revision to {PARQUET_REVISION}, on which the Hub has most data sets as Parquet files."
    if any("/" not in name and name.endswith(".py") for name in names):
        raise BadInput(field, f"{download.uri} has a loading script, which is code and is not run", remedy)
    raise BadInput(field, f"{download.uri} has no Parquet, JSON Lines, JSON, CSV, TSV or Arrow files", remedy)


def _by_card(download: Download, files: list[str], configs: list[Any]) -> dict[str, list[str]]:
    """The files of each split of the configuration, as the README's metadata has them."""
    entries = {str(each.get("config_name", _DEFAULT)): each for each in configs if isinstance(each, dict)}
    defaults = [name for name, each in entries.items() if each.get("default") is True]
    entry = entries[_choose(download, list(entries), defaults)]
    listed = entry.get("data_files")
    directory = str(entry.get("data_dir") or "").strip("/")
    inside = [name for name in files if not directory or name.startswith(f"{directory}/")]
    if listed is None:
        return _by_split(inside)
    if not (isinstance(listed, list) and all(isinstance(each, dict) for each in listed)):
        listed = [{"split": "train", "path": listed}]
    prefix = f"{directory}/" if directory else ""
    splits: dict[str, list[str]] = {}
    for each in listed:
        paths = each.get("path")
        paths = paths if isinstance(paths, list) else [paths]
        patterns = [prefix + str(path) for path in paths]
        splits.setdefault(str(each.get("split", "train")), []).extend(_matching(download, inside, patterns))
    return splits


def _choose(download: Download, names: list[str], defaults: list[str]) -> str:
    """The configuration to read."""
    field = f"{download.field}.config"
    if download.config is not None:
        if download.config in names:
            return download.config
        message = f"{download.uri} has no configuration {download.config!r}; it has {_listed(names)}"
        raise BadInput(field, message, "Set config to one of them.")
    usual = [name for name in names if name == _DEFAULT]
    choice = defaults or usual or names
    if len(choice) == 1:
        return choice[0]
    raise BadInput(field, f"{download.uri} has several configurations: {_listed(names)}", "Set config to one of them.")


def _by_names(download: Download, files: list[str]) -> dict[str, list[str]]:
    """The files of each split, by the usual names of directories and files."""
    converted = {name: match for name in files if (match := _CONVERTED.fullmatch(name))}
    if len(converted) == len(files):
        names = list(dict.fromkeys(match["config"] for match in converted.values()))
        config = _choose(download, names, [])
        return _by_split([name for name, match in converted.items() if match["config"] == config])
    if download.config is None:
        return _by_split(files)
    inside = [name for name in files if download.config in name.split("/")[:-1]]
    if not inside:
        names = sorted({part for name in files for part in name.split("/")[:-1]} - {"data"})
        message = f"{download.uri} has no configuration {download.config!r}; its directories are {_listed(names)}"
        raise BadInput(f"{download.field}.config", message, "Set config to one of them, or remove it.")
    return _by_split(inside)


def _by_split(files: list[str]) -> dict[str, list[str]]:
    """Files by the split that their names tell; all are train where none tells one."""
    splits: dict[str, list[str]] = {}
    for name in files:
        if split := _split_of(name):
            splits.setdefault(split, []).append(name)
    return splits or ({"train": files} if files else {})


def _split_of(name: str) -> str | None:
    *directories, file = name.split("/")
    if match := _SHARD.fullmatch(file):
        return SPLITS.get(match["split"].lower(), match["split"])
    for part in (*reversed(directories), file):
        words = re.split(r"[^a-z]+", part.lower())
        named = {SPLITS[word] for word in words if word in SPLITS}
        if len(named) == 1:
            return named.pop()
    return directories[-1] if directories and _CONVERTED.fullmatch(name) else None


def _matching(download: Download, files: list[str], patterns: list[str]) -> list[str]:
    """The files that one of the README's globs matches, or that lie in a directory that it names."""
    if len(patterns) > _MAX_PATTERNS or any(len(pattern) > _MAX_PATTERN for pattern in patterns):
        message = f"{download.uri}: the README's configs have too many or too long patterns"
        raise BadInput(f"{download.field}.uri", message, "Use another revision, or copy the files to a claim.")
    matching: list[str] = []
    for pattern in patterns:
        matching += matches(pattern, files)
        matching += [name for name in files if name.startswith(f"{pattern.rstrip('/')}/")]
    return list(dict.fromkeys(matching))


def matches(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a glob matches: `*` within a part of a path, `**` any parts."""
    expression = re.compile(glob_translate(pattern))
    return [name for name in names if expression.match(name)]


def _of_one_kind(files: list[str]) -> list[str]:
    """Of the files of a split, those of one kind: repositories often have the same rows in several."""
    kinds = Counter(suffix_of(PurePosixPath(name)) for name in files)
    kind = ".parquet" if kinds[".parquet"] else kinds.most_common(1)[0][0]
    return [name for name in files if suffix_of(PurePosixPath(name)) == kind]


def _listed(names: Iterable[str]) -> str:
    shown = [clip(str(name), 60) for name in names]
    return ", ".join(shown[:_MAX_SHOWN]) + (" …" if len(shown) > _MAX_SHOWN else "") or "none"
