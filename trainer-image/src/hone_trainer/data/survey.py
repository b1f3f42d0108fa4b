"""The first pass over the data: checks every row and chooses its split. No tokenizer, so bad data fails fast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hone.contract.settings import DataFormat
from hone_trainer.data.columns import check_columns
from hone_trainer.data.faults import Faults
from hone_trainer.data.formats import COLUMNS, FORMATS, detect, to_sample, used_columns
from hone_trainer.data.keys import Unused, unused_in
from hone_trainer.data.kinds import REMEDY, Kind
from hone_trainer.data.read import rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import Source
from hone_trainer.data.splits import choose_split, prompt_key, row_key
from hone_trainer.data.ticker import Ticker
from hone_trainer.protocol.errors import BadInput, RowFault, plain_names

_MAX_COLUMNS = 20

# Columns that rows of other tools often have, with what to do about them.
_KNOWN_COLUMNS = {
    "data": "If `data` holds all rows, write them as one array, [{…}, {…}].",
    "rows": "If `rows` holds all rows, write them as one array, [{…}, {…}].",
    "train": "If `train` holds all rows, write them as one array, [{…}, {…}].",
    "text": "Plain `text` has no prompt: split it into `prompt` and `completion`, or add a "
    "`label` and set spec.objective to Classification.",
}


@dataclass(frozen=True)
class RowRef:
    """What is stored of a good row between the passes: a few bytes and its class, never its text."""

    split: str | None
    """train, validation or test; None if another split has the same row."""
    row: bytes
    prompt: bytes
    label: str | int | None = None


@dataclass(frozen=True)
class Survey:
    """The result of the first pass."""

    format: DataFormat
    refs: list[RowRef]
    """One per good row, in reading order."""
    faults: Faults
    duplicates: int
    """Good rows left out because a held-out split has the same row."""
    shared_prompts: int
    """Training rows whose prompt is also in the test split, with another answer."""
    chat: bool
    """Whether any row is a conversation."""
    plain_text: bool
    """Whether any row is plain text."""
    unused: Unused = field(default_factory=Unused)
    """Keys of good rows that nothing reads."""


def survey(
    sources: list[Source],
    format: DataFormat,
    validation_fraction: float,
    test_fraction: float,
    formats: Sequence[DataFormat] = tuple(COLUMNS),
    *,
    generated: bool = False,
) -> Survey:
    """Check all rows of all sources.

    Args:
        sources: train, and validation and test if the user has them.
        format: the format to read, or AUTO to take it from the first row whose format can be detected.
        validation_fraction: share of the train source held out for validation; 0 if validation has a source.
        test_fraction: share held out for the test split; 0 if that has a source.
        formats: the objective's formats, for detection and error messages.
        generated: as for `prompt_key`.

    Raises:
        BadInput: a source has no good row, with the most frequent reason and a remedy; a file cannot be read to its
            end; or `dataset.columns` names a column that no row has.
    """
    check_columns(sources)
    if format is DataFormat.AUTO:
        format = _find_format(sources[0], formats)
    faults, unused = Faults(), Unused()
    refs: list[RowRef] = []
    chats: set[bool] = set()
    for source, sample in _good_rows(sources, format, faults, unused):
        chats.add(sample.is_chat)
        prompt = prompt_key(sample, generated=generated)
        split = source.name
        if split == "train":
            split = choose_split(prompt, validation_fraction, test_fraction)
        refs.append(RowRef(split, row_key(sample), prompt, sample.label))
    refs, duplicates = _without_duplicates(refs)
    test_prompts = {ref.prompt for ref in refs if ref.split == "test"}
    shared = sum(ref.split == "train" and ref.prompt in test_prompts for ref in refs)
    return Survey(format, refs, faults, duplicates, shared, True in chats, False in chats, unused)


def _good_rows(
    sources: list[Source], format: DataFormat, faults: Faults, unused: Unused
) -> Iterator[tuple[Source, Sample]]:
    """The rows that can be used, each with its source; the others are counted in `faults`, and the keys that nothing
    reads in `unused`."""
    ticker, total = Ticker(), 0
    for source in sources:
        own, before = Faults(), total
        for where, row, sample in _checked(source, format):
            ticker.tick("Checking rows", split=source.name, rows=total, badRows=faults.total)
            if isinstance(sample, RowFault):
                faults.add(str(sample), where)
                own.add(str(sample), where)
                continue
            total += 1
            unused.add(unused_in(row, used_columns(row, format)))
            yield source, sample
        if total == before:
            _refuse(source, [format], own)


def good_samples(sources: list[Source], format: DataFormat) -> Iterator[tuple[str, Sample]]:
    """The good rows again, in the order of `Survey.refs`, each with its place."""
    for source in sources:
        for where, _, sample in _checked(source, format):
            if isinstance(sample, Sample):
                yield where, sample


def _checked(source: Source, format: DataFormat) -> Iterator[tuple[str, dict[str, Any], Sample | RowFault]]:
    """Every row: its place, the row as it was read, and what it is or what is wrong with it."""
    for where, row in rows(source):
        if isinstance(row, RowFault):
            yield where, {}, row
            continue
        try:
            yield where, row, to_sample(row, format)
        except RowFault as fault:
            yield where, row, fault


def _find_format(source: Source, formats: Sequence[DataFormat]) -> DataFormat:
    """The format of the first row that has one's columns; a fault in some rows before it does not matter."""
    present: dict[str, Any] = {}
    faults = Faults()
    for where, row in rows(source):
        if isinstance(row, RowFault):
            faults.add(str(row), where)
            continue
        if (format := detect(row, formats)) is not None:
            return format
        present.update(dict.fromkeys(list(row)[:_MAX_COLUMNS]))
    if not present:
        _refuse(source, formats, faults)
    raise _missing_columns(source, list(present), formats)


def _missing_columns(source: Source, present: list[str], formats: Sequence[DataFormat]) -> BadInput:
    columns = plain_names(present[:_MAX_COLUMNS])
    expected = " or ".join(" and ".join(f"`{c}`" for c in COLUMNS[format]) for format in formats)
    hints = [hint for column, hint in _KNOWN_COLUMNS.items() if column in present][:1]
    if any(file.kind is Kind.CSV for file in source.files):
        hints.append("The first line of CSV must name the columns.")
    hints.append(f"Write each row as {_examples(formats)}, or map the columns with spec.dataset.columns.")
    return BadInput(
        source.field,
        f"a column is missing: the rows have {columns or 'no columns'}, expected {expected}",
        " ".join(hints),
    )


def _examples(formats: Sequence[DataFormat]) -> str:
    """Examples of the first two formats: more do not fit into a hint."""
    return " or ".join(FORMATS[format].example for format in formats[:2])


def _refuse(source: Source, formats: Sequence[DataFormat], faults: Faults) -> None:
    names = ", ".join(file.name for file in source.files[:3])
    if not faults.total:
        raise BadInput(source.field, f"{names} has no rows", REMEDY)
    reason = max(faults.counts, key=lambda r: faults.counts[r])
    if reason.startswith("no column"):
        first = next(row for _, row in rows(source) if isinstance(row, dict))
        raise _missing_columns(source, list(first), formats)
    raise BadInput(
        source.field,
        f"none of the {faults.total} rows of {names} can be used; most frequent reason, first at "
        f"{faults.first[reason]}: {reason}",
        f"Write each row as {_examples(formats)}.",
    )


def _without_duplicates(refs: list[RowRef]) -> tuple[list[RowRef], int]:
    """Take rows out of a split where test, or for train also validation, has exactly the same row."""
    test = {ref.row for ref in refs if ref.split == "test"}
    held_out = test | {ref.row for ref in refs if ref.split == "validation"}
    also_in = {"test": set(), "validation": test, "train": held_out}
    result = [replace(ref, split=None) if ref.split and ref.row in also_in[ref.split] else ref for ref in refs]
    return result, sum(ref.split is None for ref in result)
