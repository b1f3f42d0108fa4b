"""The first pass over the data: checks every row and chooses its split. No tokenizer, so bad data fails fast."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hone.contract.plan import SourceRows
from hone.contract.progress import CHECKING_ROWS
from hone.contract.settings import DataFormat, SplitBy
from hone_trainer.data import near, sensitive
from hone_trainer.data.assign import RowRef, Seen, assign, repeated
from hone_trainer.data.checked import CheckedChunk, RowCheck, check_chunk, checked
from hone_trainer.data.columns import check_columns
from hone_trainer.data.faults import Faults
from hone_trainer.data.formats import COLUMNS, FORMATS, detect
from hone_trainer.data.keys import Unused
from hone_trainer.data.kinds import REMEDY, Kind
from hone_trainer.data.mixture import chosen, copies, source_rows, with_formats
from hone_trainer.data.oversample import oversampled
from hone_trainer.data.read import chunks, rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import Part, Source
from hone_trainer.data.suggest import suggestion
from hone_trainer.data.ticker import Ticker
from hone_trainer.data.workers import in_order
from hone_trainer.protocol.errors import BadInput, RowFault, plain_names

_MAX_COLUMNS = 20

# Columns that rows of other tools often have, with what to do about them.
_KNOWN_COLUMNS = {
    "data": "If `data` holds all rows, write them as one array, [{…}, {…}].",
    "rows": "If `rows` holds all rows, write them as one array, [{…}, {…}].",
    "instances": "If `instances` holds all rows, write them as one array, [{…}, {…}].",
    "train": "If `train` holds all rows, write them as one array, [{…}, {…}].",
    "text": "Plain `text` has no prompt: set spec.objective to SFT to learn all of it, split it into `prompt` and "
    "`completion`, or add a `label` and set spec.objective to Classification.",
}


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
    by_source: dict[str, tuple[int, Faults]] = field(default_factory=dict)
    """For each source, by its place below spec.dataset, how many good rows it has, and its bad ones."""
    checks: list[RowCheck] = field(default_factory=list)
    """How the rows of each source were checked."""
    chunks: list[int] = field(default_factory=list)
    """Good rows of each chunk of all sources, in reading order."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about how the rows were split, and about rows that stand there several times."""
    formats: tuple[DataFormat, ...] = ()
    """The formats of all sources, of which `format` is the first."""
    sources: tuple[Source, ...] = ()
    """What was read, each with its format if there are several of training rows."""
    source_rows: list[SourceRows] | None = None
    """The rows of each source of training rows, if there are several."""

    oversampled: bool = False
    """Whether training rows of rare classes or groups are repeated."""

    @property
    def grouped_by(self) -> str | None:
        """The column by which test rows are scored separately; None: there is none."""
        return next((check.source.group_by for check in self.checks), None)


def survey(
    sources: list[Source],
    format: DataFormat,
    validation_fraction: float,
    test_fraction: float,
    formats: Sequence[DataFormat] = tuple(COLUMNS),
    *,
    generated: bool = False,
    split_by: SplitBy | None = None,
    oversample: bool = False,
) -> Survey:
    """Check all rows of all sources.

    Args:
        sources: train, and validation and test if the user has them.
        format: the format to read, or AUTO to take it from the first row whose format can be detected.
        validation_fraction: share of the train source held out for validation; 0 if validation has a source.
        test_fraction: share held out for the test split; 0 if that has a source.
        formats: the objective's formats, for detection and error messages.
        generated: as for `prompt_key`.
        split_by: what rows are held out by; None: as `assign` chooses.
        oversample: whether training rows of rare classes or groups are repeated.

    Raises:
        BadInput: a source has no good row, with the most frequent reason and a remedy; a file cannot be read to its
            end; or `dataset.columns` names a column that no row has.
    """
    check_columns(sources)
    sources = with_formats(sources, format, lambda source: find_format(source, formats))
    if sources[0].format is not None:
        format = sources[0].format
    elif format is DataFormat.AUTO:
        format = find_format(sources[0], formats)
    checks = [RowCheck(source, source.format or format, split_by, generated) for source in sources]
    result = _Checked()
    _check_all(sources, checks, result)
    good, parts = result.good, result.parts
    used = chosen(good, parts)
    candidates = [row for row, own in zip(good, used, strict=True) if own]
    assigned = assign(candidates, validation_fraction, test_fraction, split_by)
    refs = [
        RowRef(split, row.row, row.prompt, row.label) for row, split in zip(candidates, assigned.splits, strict=True)
    ]
    refs, duplicates = _without_duplicates(refs)
    repeats = repeated((row, ref.split) for row, ref in zip(candidates, refs, strict=True))
    if oversample:
        refs, sentences = oversampled(candidates, refs)
        repeats += sentences
    refs = _weighted(good, used, parts, refs)
    alike = near.near_duplicates((mark, ref.split, ref.prompt) for mark, ref in zip(result.sketches, refs, strict=True))
    advice = [*near.warning(alike), *sensitive.warning(result.sensitive)]
    warnings = [*_unread(sources), *assigned.warnings, *repeats, *advice]
    test_prompts = {ref.prompt for ref in refs if ref.split == "test"}
    shared = sum(ref.split == "train" and ref.prompt in test_prompts for ref in refs)
    bad = {place: own.total for place, (_, own) in result.by_source.items()}
    return Survey(
        format,
        refs,
        result.faults,
        duplicates,
        shared,
        chat=True in result.chats,
        plain_text=False in result.chats,
        unused=result.unused,
        by_source=result.by_source,
        checks=checks,
        chunks=result.chunks,
        warnings=warnings,
        formats=tuple(dict.fromkeys(check.format for check in checks)),
        sources=tuple(sources),
        source_rows=source_rows(sources, result.parts, refs, bad),
        oversampled=oversample,
    )


def _weighted(good: list[Seen], used: list[bool], parts: list[Part | None], refs: Iterable[RowRef]) -> list[RowRef]:
    """One entry for each good row: those that are used with how often, the others in no split."""
    refs, result = iter(refs), []
    for row, own, part in zip(good, used, parts, strict=True):
        if not own:
            result.append(RowRef(None, row.row, row.prompt, row.label, used=False))
            continue
        ref = next(refs)
        if part is not None and ref.split == "train":
            count = copies(row.row, part)
            ref = replace(ref, copies=count * ref.copies, split="train" if count else None)
        result.append(ref)
    return result


def _check_all(sources: list[Source], checks: Sequence[RowCheck], result: "_Checked") -> None:
    """Check all rows of all sources; arguments as of `survey`."""
    ticker = Ticker(CHECKING_ROWS)
    for source, check in zip(sources, checks, strict=True):
        own, before, files = Faults(), len(result.good), Counter[str]()
        for chunk in in_order(partial(check_chunk, check), chunks(source)):
            result.add(chunk, own, source.part)
            files.update(chunk.files)
            ticker.tick("Checking rows", len(result.good), split=source.place, badRows=result.faults.total)
        good = len(result.good) - before
        if not good:
            _refuse(source, [check.format], own)
        _refuse_files(check, [name for name, count in files.items() if not count])
        result.by_source[source.place] = good, own
    ticker.end()


@dataclass
class _Checked:
    """What is known of the rows so far; attributes as of `Survey`, except for the rows as they were seen."""

    good: list[Seen] = field(default_factory=list)
    parts: list[Part | None] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    chats: set[bool] = field(default_factory=set)
    faults: Faults = field(default_factory=Faults)
    unused: Unused = field(default_factory=Unused)
    by_source: dict[str, tuple[int, Faults]] = field(default_factory=dict)
    sensitive: Counter[str] = field(default_factory=Counter)
    sketches: list[int] = field(default_factory=list)

    def add(self, chunk: CheckedChunk, own: Faults, part: Part | None) -> None:
        """Add a chunk, and its bad rows to those of its source as well."""
        self.good += chunk.seen
        self.parts += [part] * len(chunk.seen)
        self.chunks.append(len(chunk.seen))
        self.chats |= chunk.chats
        self.sensitive.update(chunk.sensitive)
        self.sketches += chunk.sketches
        self.unused.merge(chunk.unused)
        for reason, where in chunk.faults:
            self.faults.add(reason, where)
            own.add(reason, where)


def _unread(sources: list[Source]) -> list[str]:
    """Sentences about files that lie next to those that are read."""
    return [
        f"{len(source.unread)} files of the directory of {source.field} are not read: "
        f"{', '.join(source.unread[:5])}{' …' if len(source.unread) > 5 else ''}."
        for source in sources
        if source.unread
    ]


def _refuse_files(check: RowCheck, files: list[str]) -> None:
    """Refuse files of which no row can be used, though other files of the source are good: they hold something else.

    Raises:
        BadInput: with the first of them, and the format that its rows have.
    """
    if not files:
        return
    source, format = check.source, check.format
    others = replace(source, files=tuple(file for file in source.files if file.name == files[0]))
    samples = (sample for chunk in chunks(others) for _, _, sample in checked(check, chunk))
    reason = next(str(sample) for sample in samples if isinstance(sample, RowFault))
    first = next((row for _, row in rows(others) if isinstance(row, dict)), {})
    other = detect(first)
    kind = f"its rows have the format {other.value}" if other not in (None, format) else reason
    raise BadInput(
        source.field,
        f"no row of {files[0]} can be used with the format {format.value} of the other files: {kind}",
        "Write the rows of all files in one format, or select the files with a glob.",
    )


def good_samples(sources: list[Source], format: DataFormat, *, grouped: bool = False) -> Iterator[tuple[str, Sample]]:
    """The good rows again, in the order of `Survey.refs`, each with its place.

    Args:
        sources: as `Survey.sources` has them.
        format: of the sources without one of their own.
        grouped: as `Survey.grouped`.
    """
    for source in sources:
        check = RowCheck(source, source.format or format, SplitBy.COLUMN if grouped else None)
        for chunk in chunks(source):
            yield from ((where, sample) for where, _, sample in checked(check, chunk) if isinstance(sample, Sample))


def find_format(source: Source, formats: Sequence[DataFormat]) -> DataFormat:
    """The format of the first row that has one's columns; a fault in some rows before it does not matter.

    Raises:
        BadInput: no row has the columns of one of `formats`.
    """
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
    first = next((row for _, row in rows(source) if isinstance(row, dict)), {})
    known = [hint for column, hint in _KNOWN_COLUMNS.items() if column in present][:1]
    hints = [own] if (own := suggestion(first, formats)) else known
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
        columns = next(list(row) for _, row in rows(source) if isinstance(row, dict))
        raise _missing_columns(source, columns, formats)
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
