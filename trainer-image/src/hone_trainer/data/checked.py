"""Chunks of rows as they were read, and what each row is, or what is wrong with it: the work of the first pass."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hone.contract.settings import DataFormat, SplitBy
from hone_trainer.data import near, sensitive
from hone_trainer.data.assign import Seen, seen
from hone_trainer.data.formats import to_sample, used_columns
from hone_trainer.data.groups import group_of
from hone_trainer.data.keys import Unused, unused_in
from hone_trainer.data.read import Chunk, Raw, decoded, too_large
from hone_trainer.data.reasoning import without_reasoning
from hone_trainer.data.sample import Sample, with_system_prompt
from hone_trainer.data.sources import Source
from hone_trainer.data.turns import filled
from hone_trainer.protocol.errors import RowFault

GROUP = "group"
"""The column whose value parts the rows with `splitBy: Column`."""
_NO_GROUP = f"no column `{GROUP}`, by which spec.dataset.splitBy parts the rows"


@dataclass(frozen=True)
class RowCheck:
    """What decides which rows can be used, and what is stored of them.

    Attributes:
        source: where they are read.
        format: how they are written.
        split_by: what they are held out by.
        generated: whether the model generates the answers.
    """

    source: Source
    format: DataFormat
    split_by: SplitBy | None = None
    generated: bool = False

    @property
    def grouped(self) -> bool:
        """Whether rows without a group are bad ones."""
        return self.split_by is SplitBy.COLUMN


@dataclass
class CheckedChunk:
    """What the first pass keeps of a chunk.

    Attributes:
        seen: its good rows.
        chats: whether there are conversations (True) and plain texts (False) among them.
        faults: reason and place of each other row.
        unused: keys of good rows that nothing reads.
        files: good rows by the name of their file, also 0.
        sensitive: good rows with personal data or secrets, by kind.
        sketches: of the prompt of each good row (`hone_trainer/data/near.py`).
    """

    seen: list[Seen] = field(default_factory=list)
    chats: set[bool] = field(default_factory=set)
    faults: list[tuple[str, str]] = field(default_factory=list)
    unused: Unused = field(default_factory=Unused)
    files: dict[str, int] = field(default_factory=dict)
    sensitive: Counter[str] = field(default_factory=Counter)
    sketches: list[int] = field(default_factory=list)


def check_chunk(check: RowCheck, chunk: Chunk) -> CheckedChunk:
    """Check the rows of a chunk.

    Raises:
        BadInput: a row does not fit into memory.
    """
    result = CheckedChunk()
    used = [*([GROUP] if check.grouped else []), *([check.source.group_by] if check.source.group_by else [])]
    try:
        for where, row, sample in checked(check, chunk):
            file = where.rpartition(":")[0]
            good = isinstance(sample, Sample)
            result.files[file] = result.files.get(file, 0) + good
            if not isinstance(sample, Sample):
                result.faults.append((str(sample), where))
                continue
            result.chats.add(sample.is_chat)
            result.sensitive.update(sensitive.kinds_in(sample))
            result.sketches.append(near.sketch(sample))
            read = (*used_columns(row, check.format), *used)
            result.unused.add(unused_in(row, read, training=check.source.name == "train"))
            one = seen(sample, check.source.name, check.split_by, row.get(GROUP), generated=check.generated)
            result.seen.append(replace(one, subgroup=group_of(row, check.source)) if check.source.group_by else one)
    except MemoryError as error:
        raise too_large(check.source, chunk[0][0]) from error
    return result


def checked(
    check: RowCheck, rows: Iterable[tuple[str, Raw]]
) -> Iterator[tuple[str, dict[str, Any], Sample | RowFault]]:
    """Every row: its place, the row as it was read, and what it is or what is wrong with it."""
    for where, raw in rows:
        row = decoded(raw, check.source)
        if isinstance(row, RowFault):
            yield where, {}, row
            continue
        try:
            yield where, row, _sample(check, row)
        except RowFault as fault:
            yield where, row, fault


def _sample(check: RowCheck, row: dict[str, Any]) -> Sample:
    sample = with_system_prompt(to_sample(row, check.format), check.source.system_prompt)
    sample = without_reasoning(sample) if check.source.drop_reasoning else sample
    if check.grouped and not filled(row.get(GROUP)):
        raise RowFault(_NO_GROUP)
    return sample
