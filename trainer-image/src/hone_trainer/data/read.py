"""The rows of a data set, whatever its files are: each with its place, under Hone's names of columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from hone_trainer.data.kinds import BROKEN, FileFault, damaged
from hone_trainer.data.label_values import SEPARATOR, columns_of, of_columns
from hone_trainer.data.providers import standard
from hone_trainer.data.readers import READERS, parsed
from hone_trainer.data.sources import Source
from hone_trainer.protocol import limits
from hone_trainer.protocol.errors import BadInput, RowFault

MESSAGE_KEYS = ("role", "content")
"""Keys of messages that `columns` may name."""
TURNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
"""Columns that may hold lists of messages."""
ABSENT = object()
"""What `at` returns where there is nothing: None is a value."""
ROWS_AT_ONCE, BYTES_AT_ONCE = 1000, 8 << 20
"""Rows of a chunk, and bytes after which it ends with fewer: whoever works on it holds it in memory."""

Raw = bytes | dict[str, Any] | RowFault
"""A row as it was read: a line of JSON Lines, an object, or what is wrong with it."""


Chunk = list[tuple[str, Raw]]
"""Rows of a source that follow each other: the place of each, and the row. The same data have the same chunks."""


def rows(source: Source) -> Iterator[tuple[str, dict[str, Any] | RowFault]]:
    """Every row of a source, the same each time: its place, and its object or what is wrong with it.

    A place is `file:line` of a text, `file:row n` of a JSON array, Parquet or Arrow; both count from 1.

    Raises:
        BadInput: the rest of a file cannot be read.
    """
    return ((place, decoded(row, source)) for place, row in _raw_rows(source))


def chunks(source: Source) -> Iterator[Chunk]:
    """All rows of a source, undecoded. Raises as `rows`."""
    chunk, size = Chunk(), 0
    for place, row in _raw_rows(source):
        chunk.append((place, row))
        size += _size(row)
        if len(chunk) == ROWS_AT_ONCE or size > BYTES_AT_ONCE:
            yield chunk
            chunk, size = Chunk(), 0
    if chunk:
        yield chunk


def decoded(row: Raw, source: Source) -> dict[str, Any] | RowFault:
    """A row's object under Hone's names of columns, or what is wrong with it."""
    row = parsed(row) if isinstance(row, bytes) else row
    try:
        return row if isinstance(row, RowFault) else standard(rename(row, source.columns, source.roles))
    except RowFault as fault:
        return fault


def too_large(source: Source, place: str) -> BadInput:
    """The error for a row or file that does not fit into memory."""
    return BadInput(
        source.field,
        f"{place} does not fit into the pod's memory while it is read",
        "Check what it expands to, split it, or raise spec.prepare.resources.limits.memory.",
    )


def _raw_rows(source: Source) -> Iterator[tuple[str, Raw]]:
    prefix = f"{source.part.name}/" if source.part else ""
    for file in source.files:
        limits.reading(source.field, file.name)
        try:
            for place, row in READERS[file.kind](file):
                yield f"{prefix}{file.name}:{place}", row
        except FileFault as fault:
            raise BadInput(source.field, f"{file.name}: {fault}", fault.hint) from fault
        except MemoryError as error:
            raise too_large(source, file.name) from error
        except BROKEN as error:
            raise damaged(source.field, file.name, error) from error


def _size(value: Any) -> int:
    """About how many bytes of text a value holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def rename(row: dict[str, Any], columns: Mapping[str, str], roles: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The row with Hone's names for the columns, keys of messages and roles that have other names in it.

    Args:
        row: as it was read.
        columns: the row's own names by Hone's; `data.question` is the key `question` of the object `data`, and
            `label: rude,off-topic` makes classes of these columns, which have 0 or 1.
        roles: Hone's roles by the row's own names.

    Raises:
        RowFault: a column that is a class has neither 0 nor 1.
    """
    if columns:
        others, values = row, {}
        for name, path in columns.items():
            if name == "label" and path not in row and len(classes := paths(name, path)) > 1:
                others = {column: value for column, value in others.items() if column not in classes}
                values[name] = of_columns(row, classes)
            elif name not in MESSAGE_KEYS and (value := at(row, path)) is not ABSENT:
                others, values[name] = _without(others, path), value
        row = others | values
    keys = {ours: theirs for ours, theirs in columns.items() if ours in MESSAGE_KEYS}
    if not keys and not roles:
        return row
    return {name: _renamed(value, keys, roles or {}) if name in TURNS else value for name, value in row.items()}


def paths(name: str, path: str) -> list[str]:
    """The columns that an entry of `columns` names: several, separated by commas, only for a label."""
    return columns_of(path) if name == "label" and SEPARATOR in path else [path]


def at(row: Any, path: str) -> Any:
    """The value of a column, or of a key of an object in it by a path such as `data.question`; `ABSENT` without one."""
    if isinstance(row, dict) and path in row:
        return row[path]
    first, dot, rest = path.partition(".")
    return at(row[first], rest) if dot and isinstance(row, dict) and first in row else ABSENT


def _without(row: dict[str, Any], path: str) -> dict[str, Any]:
    """The row without what a path leads to, so that only what nothing reads is left of the object around it."""
    if path in row:
        return {name: value for name, value in row.items() if name != path}
    first, _, rest = path.partition(".")
    inner = row.get(first)
    return {**row, first: _without(inner, rest)} if isinstance(inner, dict) else row


def _renamed(messages: Any, keys: Mapping[str, str], roles: Mapping[str, str]) -> Any:
    """Messages with the keys and roles that Hone reads; anything else as it is."""
    if isinstance(messages, dict):
        return _message(messages, keys, roles)
    return [_renamed(item, keys, roles) for item in messages] if isinstance(messages, list) else messages


def _message(message: dict[str, Any], keys: Mapping[str, str], roles: Mapping[str, str]) -> dict[str, Any]:
    theirs = {keys.get(ours, ours): ours for ours in MESSAGE_KEYS}
    message = {theirs.get(name, name): value for name, value in message.items()}
    sender = "role" if "role" in message else "from"
    name = message.get(sender)
    if not isinstance(name, str) or name not in roles:
        return message
    standard = {"from": "role", "value": "content"} if sender == "from" else {}
    return {standard.get(key, key): value for key, value in message.items()} | {"role": roles[name]}
