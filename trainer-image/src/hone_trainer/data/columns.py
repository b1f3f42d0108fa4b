"""`dataset.columns`: the user's names of columns, by Hone's names."""

from dataclasses import replace
from typing import Any

from hone_trainer.data.formats import COLUMNS, OPTIONAL_COLUMNS
from hone_trainer.data.read import ABSENT, MESSAGE_KEYS, at, paths, rows
from hone_trainer.data.sources import Source
from hone_trainer.protocol.errors import BadInput, RowFault, clip, plain_names

FIELD = "spec.dataset.columns"
_MAX_LISTED, _MAX_KNOWN = 20, 1000


def check_columns(sources: list[Source]) -> None:
    """Check every entry: the name must be Hone's, and the user's column must exist in a row.

    Most often the first row has all of them, and no more is read.

    Raises:
        BadInput: with the wrong name and the ones that exist.
    """
    alike = [source for source in sources if not source.part]
    if alike:
        _check(FIELD, alike)
    for source in sources:
        if source.part:
            _check(f"{source.field}.columns", [source])


def _check(field: str, sources: list[Source]) -> None:
    """The same for sources with the same names."""
    columns = sources[0].columns
    names = (name for names in COLUMNS.values() for name in names)
    known = sorted({*names, *OPTIONAL_COLUMNS, *MESSAGE_KEYS, "group"})
    if unknown := [name for name in columns if name not in known]:
        raise BadInput(
            field,
            f"`{clip(unknown[0], 40)}` is not a column that Hone reads",
            f"Write `name: yours`, where name is one of {', '.join(known)} and yours is the column in your rows.",
        )
    missing = {path for name, path in columns.items() if name not in MESSAGE_KEYS}
    parts = {path: paths(name, path) for name, path in columns.items()}
    present = dict[str, None]()
    for source in sources:
        for _, row in rows(replace(source, columns={}, roles={})) if missing else ():
            if not isinstance(row, RowFault):
                missing = {path for path in missing if _lacks(row, path, parts[path])}
                present.update(dict.fromkeys(list(row)[:_MAX_KNOWN]))
            if not missing:
                break
    if missing and present:
        name, theirs = next((name, theirs) for name, theirs in columns.items() if theirs in missing)
        theirs = next((part for part in parts[theirs] if part not in present), theirs)
        listed = plain_names(list(present)[:_MAX_LISTED])
        raise BadInput(
            field,
            f"`{name}` is mapped to `{clip(theirs, 40)}`, but no row has that column; the rows have {listed}",
            "Use one of these columns.",
        )


def _lacks(row: dict[str, Any], path: str, parts: list[str]) -> bool:
    """Whether a row lacks a column, or one of the columns that together are one."""
    return at(row, path) is ABSENT and any(at(row, part) is ABSENT for part in parts)
