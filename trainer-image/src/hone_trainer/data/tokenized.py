"""Tokenizes every row once, uncut and in reading order, into one Arrow file per split."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from hone.contract.progress import TOKENIZING
from hone_trainer.data.encoded import EncodedChunk, Task, encode_chunk
from hone_trainer.data.prepared import SPLITS
from hone_trainer.data.read import chunks
from hone_trainer.data.rows import RowEncoder
from hone_trainer.data.sources import Source
from hone_trainer.data.survey import Survey
from hone_trainer.data.ticker import Ticker
from hone_trainer.data.token_rows import Options, SplitRows, Tokenized, features
from hone_trainer.data.workers import in_order

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends a stream of Arrow's, after its schema and its record batches."""


def tokenize(raw: Path, survey: Survey, encoder: RowEncoder, options: Options) -> Tokenized:
    """Write the rows of each split to `raw/<split>.arrow`. Rows that cannot be encoded are added to `survey.faults`."""
    result = Tokenized({name: SplitRows() for name in SPLITS})
    notes, ticker, total = Counter[str](), Ticker(TOKENIZING), 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((raw / f"{name}.arrow").open("wb")) for name in SPLITS}
        for name, file in files.items():
            file.write(features(name, encoder).arrow_schema.serialize())
        for chunk in _encoded(survey, encoder, options):
            for name, batch in chunk.batches.items():
                files[name].write(batch)
            notes += chunk.notes
            options.checks.merge(chunk.checks)
            for reason, place in chunk.faults:
                survey.faults.add(reason, place)
            result.add(chunk.rows)
            total += chunk.count
            ticker.tick("Tokenizing", total, len(survey.refs))
        for file in files.values():
            file.write(_END_OF_STREAM)
    encoder.notes = notes
    return result


def _encoded(survey: Survey, encoder: RowEncoder, options: Options) -> Iterator[EncodedChunk]:
    """All chunks of all sources, in reading order."""
    first, number = 0, 0
    for check in survey.checks:

        def tasks(source: Source) -> Iterator[Task]:
            nonlocal first, number
            for chunk in chunks(source):
                end = first + survey.chunks[number]
                yield chunk, survey.refs[first:end]
                first, number = end, number + 1

        yield from in_order(partial(encode_chunk, check, encoder, options), tasks(check.source))
