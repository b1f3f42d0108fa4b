"""Chunks of rows as token ids: the work of the second pass."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hone_trainer.data.assign import RowRef
from hone_trainer.data.checked import RowCheck, checked
from hone_trainer.data.groups import EVALUATION_GROUP, group_of
from hone_trainer.data.prepared import SPLITS
from hone_trainer.data.read import Chunk, too_large
from hone_trainer.data.rows import EncodedRow, RowEncoder
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import shuffle_key
from hone_trainer.data.token_checks import TokenChecks
from hone_trainer.data.token_rows import Options, SplitRows, Tokenized, features
from hone_trainer.protocol.errors import RowFault, clip

_MAX_EXAMPLE = 1024
_MAX_OUTLINE = 256

Task = tuple[Chunk, list[RowRef]]
"""A chunk, and what the first pass stored of its good rows."""
Columns = dict[str, list[Any]]


@dataclass
class EncodedChunk:
    """A chunk as numbers.

    Attributes:
        rows: what is stored of its rows.
        checks: what was counted in their tokens.
        batches: the columns of each split that has rows, as an Arrow record batch.
        faults: reason and place of each row that cannot be encoded.
        notes: as of `RowEncoder`.
        count: its good rows.
    """

    rows: Tokenized
    checks: TokenChecks
    batches: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    count: int = 0


def encode_chunk(check: RowCheck, encoder: RowEncoder, options: Options, task: Task) -> EncodedChunk:
    """Encode the rows of a chunk.

    Raises:
        BadInput: the model does not fit its tokenizer, or a row does not fit into memory.
    """
    chunk, refs = task
    grouped = check.source.group_by is not None
    result = EncodedChunk(
        Tokenized({name: SplitRows() for name in SPLITS}),
        options.checks.empty(),
        count=len(refs),
    )
    encoder.notes = result.notes
    columns: dict[str, Columns] = {}
    try:
        for ref, (place, row, sample) in zip(refs, _good(check, chunk), strict=True):
            if ref.split is not None:
                group = {EVALUATION_GROUP: group_of(row, check.source)} if grouped and ref.split == "test" else {}
                _add(result, columns.setdefault(ref.split, {}), encoder, options, ref, place, sample, group)
        result.batches = {name: _batch(name, held, encoder, grouped) for name, held in columns.items() if held}
    except MemoryError as error:
        raise too_large(check.source, chunk[0][0]) from error
    return result


def _good(check: RowCheck, chunk: Chunk) -> Iterator[tuple[str, dict[str, Any], Sample]]:
    return ((where, row, sample) for where, row, sample in checked(check, chunk) if isinstance(sample, Sample))


def _add(
    result: EncodedChunk,
    columns: Columns,
    encoder: RowEncoder,
    options: Options,
    ref: RowRef,
    place: str,
    sample: Sample,
    group: dict[str, str],
) -> None:
    """Encode a row of the split `ref.split`, and add it, with its group if it has one, to the columns of that split."""
    split = str(ref.split)
    try:
        encoded, values = _encode(encoder, sample, split, options, result.checks)
    except RowFault as fault:
        result.faults.append((str(fault), place))
        return
    for name, value in {**values, **group}.items():
        columns.setdefault(name, []).append(_compact(value))
    rows = result.rows
    rows.splits[split].add(encoded, shuffle_key(options.seed, ref.row), place, ref.copies)
    if split == "train":
        rows.learns_to_stop = rows.learns_to_stop or encoder.learns_to_stop(encoded)
        if rows.outline is None:
            rows.example = encoder.decode(encoded, _MAX_EXAMPLE)
            rows.outline = clip(sample.outline(), _MAX_OUTLINE)


def _encode(
    encoder: RowEncoder, sample: Sample, split: str, options: Options, checks: TokenChecks
) -> tuple[EncodedRow, dict[str, Any]]:
    encoded = encoder.encode(sample)
    columns = {**encoded.columns(), "length": encoded.length}
    checks.add(columns, encoder.COLUMNS, trained=split == "train")
    checks.add_messages(sample.all_messages())
    if split == "test":
        columns |= _test_columns(encoder, sample, options.max_length)
    return encoded, columns


def _test_columns(encoder: RowEncoder, sample: Sample, max_length: int) -> dict[str, Any]:
    ids, text = encoder.prompt(sample)
    if len(ids) >= max_length:
        raise RowFault(f"the prompt alone fills the model's context of {max_length} tokens")
    return {"prompt_ids": ids, "reference": encoder.reference(sample), "prompt": text}


def _compact(value: Any) -> Any:
    """Token ids in four bytes each."""
    import numpy as np

    return np.asarray(value, dtype=np.int32) if isinstance(value, list) else value


def _batch(name: str, columns: Columns, encoder: RowEncoder, grouped: bool) -> bytes:
    import pyarrow as pa

    schema: pa.Schema = features(name, encoder, grouped=grouped).arrow_schema
    arrays = [pa.array(columns[each.name], type=each.type) for each in schema]
    return bytes(pa.record_batch(arrays, schema=schema).serialize())
