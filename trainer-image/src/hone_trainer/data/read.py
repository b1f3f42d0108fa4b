"""The rows of a data set, whatever its files are: each with its place, under Hone's names of columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from hone_trainer.data.kinds import BROKEN, FileFault, damaged
from hone_trainer.data.readers import READERS
from hone_trainer.data.sources import Source
from hone_trainer.protocol import limits
from hone_trainer.protocol.errors import BadInput, RowFault


def rows(source: Source) -> Iterator[tuple[str, dict[str, Any] | RowFault]]:
    """Every row of a source, the same each time: its place, and its object or what is wrong with it.

    A place is `file:line` of a text, `file:row n` of a JSON array, Parquet or Arrow; both count from 1.

    Raises:
        BadInput: the rest of a file cannot be read.
    """
    for file in source.files:
        limits.reading(source.field, file.name)
        try:
            for place, row in READERS[file.kind](file):
                yield f"{file.name}:{place}", row if isinstance(row, RowFault) else rename(row, source.columns)
        except FileFault as fault:
            raise BadInput(source.field, f"{file.name}: {fault}", fault.hint) from fault
        except MemoryError as error:
            raise BadInput(
                source.field,
                f"{file.name} does not fit into the pod's memory while it is read",
                "Check what it expands to, split it, or raise spec.prepare.resources.limits.memory.",
            ) from error
        except BROKEN as error:
            raise damaged(source.field, file.name, error) from error


def rename(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with Hone's names for the columns that have other names in it.

    Args:
        row: as it was read.
        columns: the row's own names by Hone's.
    """
    if not columns:
        return row
    theirs = set(columns.values())
    others = {name: value for name, value in row.items() if name not in theirs}
    return others | {name: row[other] for name, other in columns.items() if other in row}
