"""Tokenizes every row once, uncut and in reading order, into one Arrow file per split."""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hone.contract.progress import TOKENIZING
from hone_trainer.data.encoded import EncodedChunk, Task, encode_chunk
from hone_trainer.data.journal import Journal
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

log = logging.getLogger(__name__)


def tokenize(raw: Path, digest: str, survey: Survey, encoder: RowEncoder, options: Options) -> Tokenized:
    """Write the rows of each split to `raw/<split>.arrow`, from where an earlier run was stopped.

    Rows that cannot be encoded are added to `survey.faults`.

    Args:
        raw: the directory.
        digest: of all that the rows depend on.
        survey: the first pass.
        encoder: what encodes them.
        options: how.
    """
    sums = _Sums(survey, options)
    grouped = survey.grouped_by is not None
    heads = {name: bytes(features(name, encoder, grouped=grouped).arrow_schema.serialize()) for name in SPLITS}
    with Journal(raw, digest, heads, options.checks) as journal:
        for chunk in journal.done:
            sums.add(chunk)
        if journal.done:
            log.info("Rows that an earlier attempt has tokenized", extra={"rows": sums.total})
            sums.ticker.skip(sums.total)
        for chunk in _encoded(survey, encoder, options, len(journal.done)):
            journal.add(chunk)
            sums.add(chunk)
            sums.ticker.tick("Tokenizing", sums.total, len(survey.refs))
        journal.finish(_END_OF_STREAM)
    sums.ticker.end()
    encoder.notes = sums.notes
    return sums.result


class _Sums:
    """What is known of all chunks so far."""

    def __init__(self, survey: Survey, options: Options) -> None:
        self.result = Tokenized({name: SplitRows() for name in SPLITS})
        self.notes, self.ticker, self.total = Counter[str](), Ticker(TOKENIZING), 0
        self._survey, self._options = survey, options

    def add(self, chunk: EncodedChunk) -> None:
        """Add a chunk."""
        self.notes += chunk.notes
        self._options.checks.merge(chunk.checks)
        for reason, place in chunk.faults:
            self._survey.faults.add(reason, place)
        self.result.add(chunk.rows)
        self.total += chunk.count


def _encoded(survey: Survey, encoder: RowEncoder, options: Options, done: int) -> Iterator[EncodedChunk]:
    """The chunks of all sources, in reading order, without the first ones, which are done."""
    first, number = 0, 0
    for check in survey.checks:

        def tasks(source: Source) -> Iterator[Task]:
            nonlocal first, number
            for chunk in chunks(source):
                end = first + survey.chunks[number]
                if number >= done:
                    yield chunk, survey.refs[first:end]
                first, number = end, number + 1

        yield from in_order(partial(encode_chunk, check, encoder, options), tasks(check.source))
