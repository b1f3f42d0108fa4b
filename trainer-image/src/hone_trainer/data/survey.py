"""The first pass: every row is parsed, checked and given its split, without a tokenizer: bad data fails fast."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hone.contract.plan import BadRows
from hone.contract.settings import DataFormat
from hone_trainer.data.columns import check_columns
from hone_trainer.data.formats import COLUMNS, EXAMPLES, Sample, detect, to_sample
from hone_trainer.data.kinds import REMEDY, Kind
from hone_trainer.data.read import rows
from hone_trainer.data.sources import Source
from hone_trainer.data.splits import choose_split, prompt_key, row_key
from hone_trainer.protocol.errors import BadInput, RowFault, clip

log = logging.getLogger(__name__)

MAX_REASONS = 8
_MAX_COLUMNS = 20
_REPORT_SECONDS = 5.0

# What other tools call the same thing, and what to do about it.
_KNOWN_COLUMNS = {
    "data": "If `data` holds all rows, write them as one array, [{…}, {…}].",
    "rows": "If `rows` holds all rows, write them as one array, [{…}, {…}].",
    "train": "If `train` holds all rows, write them as one array, [{…}, {…}].",
    "text": "Plain `text` does not say what is to be answered: split it into `prompt` and `completion`, or give it a "
    "`label` and set spec.objective to Classification.",
}


@dataclass
class Faults:
    """Rows that were left out, counted by reason."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one row; `where` is kept if it is the first with this reason."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    @property
    def total(self) -> int:
        """Rows left out for any reason."""
        return sum(self.counts.values())

    def summary(self) -> list[BadRows]:
        """The most frequent reasons, the rest as one, at most `MAX_REASONS`."""
        ordered = sorted(self.counts, key=lambda reason: -self.counts[reason])
        shown = ordered if len(ordered) <= MAX_REASONS else ordered[: MAX_REASONS - 1]
        result = [
            BadRows(reason=clip(reason, 512), count=self.counts[reason], first=clip(self.first[reason], 512))
            for reason in shown
        ]
        if rest := ordered[len(shown) :]:
            result.append(
                BadRows(reason="other faults", count=sum(self.counts[r] for r in rest), first=self.first[rest[0]])
            )
        return result


@dataclass(frozen=True)
class RowRef:
    """What is remembered of a good row between the passes: a few bytes and its class, never its text."""

    split: str | None
    """train, validation or test; None where another split has the same row."""
    row: bytes
    prompt: bytes
    label: str | int | None = None


@dataclass(frozen=True)
class Survey:
    """What the first pass found."""

    format: DataFormat
    refs: list[RowRef]
    """One per good row, in reading order."""
    faults: Faults
    duplicates: int
    """Good rows left out because a split that comes before theirs has the same row."""
    shared_prompts: int
    """Training rows whose prompt also stands in the test split, with another answer."""
    chat: bool
    """Whether any row is a conversation."""
    plain_text: bool
    """Whether any row is plain text."""


def survey(
    sources: list[Source],
    wanted: DataFormat,
    validation_fraction: float,
    test_fraction: float,
    formats: Sequence[DataFormat] = tuple(COLUMNS),
    *,
    written: bool = False,
) -> Survey:
    """Check all rows of all sources.

    Args:
        sources: train, and validation and test where the user gave them.
        wanted: the format to read, or AUTO to take it from the first row that has any.
        validation_fraction: share of the train source held out for validation, 0 where that has a source.
        test_fraction: share held out for the test split, 0 where that has a source.
        formats: what the objective learns from; told where no format is found.
        written: as for `prompt_key`.

    Raises:
        BadInput: a source has no good row at all, with the most frequent reason and what to do; a file of it cannot be
            read to its end; or `dataset.columns` names what is not there.
    """
    check_columns(sources)
    format = _find_format(sources[0], formats) if wanted is DataFormat.AUTO else wanted
    faults, refs, kinds = Faults(), [], set()
    report = Ticker()
    for source in sources:
        before, good = Faults(), 0
        for where, sample in _checked(source, format):
            report.tick("Checking rows", split=source.name, rows=len(refs), badRows=faults.total)
            if isinstance(sample, RowFault):
                faults.add(str(sample), where)
                before.add(str(sample), where)
                continue
            good += 1
            kinds.add(sample.is_chat)
            prompt = prompt_key(sample, written=written)
            split = source.name
            if split == "train":
                split = choose_split(prompt, validation_fraction, test_fraction)
            refs.append(RowRef(split, row_key(sample), prompt, sample.label))
        if not good:
            _refuse(source, [format], before)
    refs, duplicates = _without_duplicates(refs)
    test_prompts = {ref.prompt for ref in refs if ref.split == "test"}
    shared = sum(ref.split == "train" and ref.prompt in test_prompts for ref in refs)
    return Survey(format, refs, faults, duplicates, shared, chat=True in kinds, plain_text=False in kinds)


def good_samples(sources: list[Source], format: DataFormat) -> Iterator[tuple[str, Sample]]:
    """The good rows again, in the order of `Survey.refs`, each with its place."""
    for source in sources:
        for where, sample in _checked(source, format):
            if isinstance(sample, Sample):
                yield where, sample


def _checked(source: Source, format: DataFormat) -> Iterator[tuple[str, Sample | RowFault]]:
    for where, row in rows(source):
        if isinstance(row, RowFault):
            yield where, row
            continue
        try:
            yield where, to_sample(row, format)
        except RowFault as fault:
            yield where, fault


def _find_format(source: Source, formats: Sequence[DataFormat]) -> DataFormat:
    """The format of the first row that has one's columns; a fault in some rows before it does not matter."""
    found: dict[str, Any] = {}
    faults = Faults()
    for where, row in rows(source):
        if isinstance(row, RowFault):
            faults.add(str(row), where)
            continue
        if (format := detect(row, formats)) is not None:
            return format
        found.update(dict.fromkeys(list(row)[:_MAX_COLUMNS]))
    if not found:
        _refuse(source, formats, faults)
    raise _missing_columns(source, list(found), formats)


def _missing_columns(source: Source, found: list[str], formats: Sequence[DataFormat]) -> BadInput:
    columns = ", ".join(f"`{clip(column, 40)}`" for column in found[:_MAX_COLUMNS])
    wanted = " or ".join(" and ".join(f"`{c}`" for c in COLUMNS[format]) for format in formats)
    hints = [hint for column, hint in _KNOWN_COLUMNS.items() if column in found][:1]
    if any(file.kind is Kind.CSV for file in source.files):
        hints.append("The first line of CSV must name the columns.")
    hints.append(
        f"Write each row as {_examples(formats)}, or say in spec.dataset.columns what these columns are named."
    )
    return BadInput(
        source.field,
        f"a column is missing: the rows have {columns or 'no columns'}, expected {wanted}",
        " ".join(hints),
    )


def _examples(formats: Sequence[DataFormat]) -> str:
    """A row of the first two: more do not fit into a hint."""
    return " or ".join(EXAMPLES[format] for format in formats[:2])


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
        f"none of the {faults.total} rows of {names} can be used; most often, as at {faults.first[reason]}: {reason}",
        f"Write each row as {_examples(formats)}.",
    )


def _without_duplicates(refs: list[RowRef]) -> tuple[list[RowRef], int]:
    """Take rows out of a split where test, or for train also validation, has exactly the same row."""
    test = {ref.row for ref in refs if ref.split == "test"}
    held_out = test | {ref.row for ref in refs if ref.split == "validation"}
    also_in = {"test": set(), "validation": test, "train": held_out}
    result = [replace(ref, split=None) if ref.split and ref.row in also_in[ref.split] else ref for ref in refs]
    return result, sum(ref.split is None for ref in result)


class Ticker:
    """Logs at most every few seconds, and nothing where all is done sooner."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _REPORT_SECONDS

    def tick(self, message: str, **fields: object) -> None:
        if time.monotonic() >= self._next:
            log.info(message, extra=fields)
            self._next = time.monotonic() + _REPORT_SECONDS
