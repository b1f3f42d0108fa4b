"""Several sources of training rows: the format of each, which of its rows are used, and how often."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hone.contract.plan import SourceRows
from hone.contract.settings import DataFormat
from hone_trainer.data.assign import RowRef, Seen
from hone_trainer.data.sources import Part, Source
from hone_trainer.data.splits import position
from hone_trainer.protocol.errors import BadInput


def with_formats(sources: list[Source], format: DataFormat, find: Callable[[Source], DataFormat]) -> list[Source]:
    """The sources, each with the format of its own rows if there are several of training rows; else as they are.

    Args:
        sources: train, perhaps several times, and validation and test if the user has them.
        format: what the spec has for all.
        find: detects the format of a source's rows.

    Raises:
        BadInput: as of `find`; or raw text is mixed with rows of another format.
    """
    if not any(source.part for source in sources):
        return sources
    configured = ((source, source.format or format) for source in sources)
    result = [replace(source, format=find(source) if own is DataFormat.AUTO else own) for source, own in configured]
    first = result[0].format
    for source in result:
        if source.format is not first and DataFormat.TEXT in (source.format, first):
            raise BadInput(
                source.field,
                f"its rows have the format {source.format}, and those of the first source {first}: raw text cannot be "
                "mixed with rows that have answers",
                "Train on the text first, in a job of its own, and name that job in spec.model.jobRef of the other.",
            )
    return result


def chosen(rows: Sequence[Seen], parts: Sequence[Part | None]) -> list[bool]:
    """Whether each row is used: of a source with `max_rows` those with the lowest hashes are."""
    limits = {part.index: part.max_rows for part in parts if part and part.max_rows is not None}
    used = [True] * len(rows)
    for index, limit in limits.items():
        own = [i for i, part in enumerate(parts) if part and part.index == index]
        for i in sorted(own, key=lambda i: (position(b"rows:" + rows[i].row), i))[limit:]:
            used[i] = False
    return used


def copies(row: bytes, part: Part | None) -> int:
    """How often a training row is used in one epoch."""
    if part is None:
        return 1
    whole = int(part.weight)
    return whole + (position(b"weight:" + row) < part.weight - whole)


def source_rows(
    sources: Sequence[Source], parts: Sequence[Part | None], refs: Sequence[RowRef], bad: Mapping[str, int]
) -> list[SourceRows] | None:
    """What is shown of each source of training rows; None if there is one.

    Args:
        sources: all of them.
        parts: where each good row was read.
        refs: the good rows.
        bad: the rows that cannot be used, by the source's place in the spec.
    """
    if not any(source.part for source in sources):
        return None
    pairs = [(part.index, ref) for part, ref in zip(parts, refs, strict=True) if part]
    rows = Counter(index for index, ref in pairs if ref.used)
    trained = Counter[int]()
    for index, ref in pairs:
        trained[index] += ref.copies if ref.split == "train" else 0
    return [
        SourceRows(
            name=source.part.name,
            format=str(source.format),
            rows=rows[source.part.index],
            bad_rows=bad[source.place],
            train_rows=trained[source.part.index],
        )
        for source in sources
        if source.part
    ]
