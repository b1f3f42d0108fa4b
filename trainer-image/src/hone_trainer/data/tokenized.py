"""Tokenizes every row once, uncut and in reading order, into one Arrow file per split."""

from array import array
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.data.faults import Faults
from hone_trainer.data.prepared import SPLITS
from hone_trainer.data.rows import Column, EncodedRow, RowEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import shuffle_key
from hone_trainer.data.survey import Survey, good_samples
from hone_trainer.data.ticker import Ticker
from hone_trainer.data.token_checks import TokenChecks
from hone_trainer.protocol.errors import RowFault, clip

if TYPE_CHECKING:
    from datasets import Features

_MAX_EXAMPLE = 1024
_MAX_OUTLINE = 256
_TEST_COLUMNS = {"prompt_ids": Column.IDS, "reference": Column.TEXT, "prompt": Column.TEXT}


@dataclass(frozen=True)
class Options:
    """What decides how rows become tokens, in addition to the rows and the tokenizer."""

    seed: int
    sequence_length: int | None
    """Cut to this many tokens; None: to the longest training row, at most `max_length`."""
    max_length: int
    """Longest context of the model in tokens."""
    max_bad_rows: float = 1.0
    """Largest share of bad rows."""
    template_field: str = "spec.model"
    """The spec's field that names the chat template."""
    default_piece: int | None = None
    """Rows are divided into pieces of `sequence_length` tokens instead of cut; without one, of this many. None: cut."""
    checks: TokenChecks = field(default_factory=TokenChecks, compare=False)
    """What is checked of every row's token ids."""


@dataclass
class SplitRows:
    """What is held in memory of each row of a split, in the order of its file: about 40 bytes a row."""

    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    first_trained: "array[int]" = field(default_factory=lambda: array("q"))
    keys: list[bytes] = field(default_factory=list)
    """Shuffle keys."""
    places: list[str] = field(default_factory=list)

    copies: "array[int]" = field(default_factory=lambda: array("q"))
    """How often each row is learned in one epoch."""

    def add(self, row: EncodedRow, key: bytes, place: str, copies: int = 1) -> None:
        """Record a row that was written."""
        self.copies.append(copies)
        self.lengths.append(row.length)
        self.first_trained.append(row.first_trained)
        self.keys.append(key)
        self.places.append(place)


@dataclass
class Tokenized:
    """All splits once their rows are written.

    Attributes:
        splits: the rows of each split, by name.
        learns_to_stop: whether in any training row a token that ends a turn carries loss.
        example: the first training row as text; None without rows.
        outline: the parts of that row with their lengths.
    """

    splits: dict[str, SplitRows]
    learns_to_stop: bool = False
    example: str | None = None
    outline: str | None = None


def tokenize(raw: Path, survey: Survey, encoder: RowEncoder, options: Options) -> Tokenized:
    """Write the rows of each split to `raw/<split>.arrow`. Rows that cannot be encoded are added to `survey.faults`."""
    from datasets.arrow_writer import ArrowWriter

    result = Tokenized({name: SplitRows() for name in SPLITS})
    ticker = Ticker()
    with ExitStack() as stack:
        writers = {}
        for name in SPLITS:
            writers[name] = ArrowWriter(path=str(raw / f"{name}.arrow"), features=features(name, encoder))
            stack.callback(writers[name].close)
        samples = zip(survey.refs, good_samples([*survey.sources], survey.format, grouped=survey.grouped), strict=True)
        for done, (ref, (place, sample)) in enumerate(samples, start=1):
            ticker.tick("Tokenizing", rows=done, totalRows=len(survey.refs))
            if ref.split is None:
                continue
            row = _encode(encoder, sample, ref.split, options, place, survey.faults)
            if row is None:
                continue
            encoded, columns = row
            writers[ref.split].write(columns)
            result.splits[ref.split].add(encoded, shuffle_key(options.seed, ref.row), place, ref.copies)
            if ref.split == "train":
                result.learns_to_stop = result.learns_to_stop or encoder.learns_to_stop(encoded)
                if result.outline is None:
                    result.example = encoder.decode(encoded, _MAX_EXAMPLE)
                    result.outline = clip(sample.outline(), _MAX_OUTLINE)
        for writer in writers.values():
            writer.finalize()
    return result


def _encode(
    encoder: RowEncoder, sample: Sample, split: str, options: Options, place: str, faults: Faults
) -> tuple[EncodedRow, dict[str, Any]] | None:
    """A row and its columns; None, and one more fault, if it cannot be encoded."""
    try:
        encoded = encoder.encode(sample)
        columns = {**encoded.columns(), "length": encoded.length}
        options.checks.add(columns, encoder.COLUMNS, trained=split == "train")
        if split == "test":
            columns |= _test_columns(encoder, sample, options.max_length)
    except RowFault as fault:
        faults.add(str(fault), place)
        return None
    return encoded, columns


def _test_columns(encoder: RowEncoder, sample: Sample, max_length: int) -> dict[str, Any]:
    ids, text = encoder.prompt(sample)
    if len(ids) >= max_length:
        raise RowFault(f"the prompt alone fills the model's context of {max_length} tokens")
    return {"prompt_ids": ids, "reference": encoder.reference(sample), "prompt": text}


def features(name: str, encoder: RowEncoder) -> "Features":
    """The columns of a split and their types."""
    from datasets import Features, List, Value

    tokens, number = List(Value("int32")), Value("int32")
    types = {Column.IDS: tokens, Column.LABELS: tokens, Column.NUMBER: number, Column.TEXT: Value("string")}
    columns = {**encoder.COLUMNS, "length": Column.NUMBER, **(_TEST_COLUMNS if name == "test" else {})}
    return Features({column: types[kind] for column, kind in columns.items()})
