"""What is done of the second pass, written as it proceeds: a run that is stopped continues there.

raw/<split>.arrow    the rows of each split, as an Arrow stream that has no end yet
raw/journal.jsonl    a line for each chunk: how many bytes it added to each stream, with their checksums, and all else
                     that is known of it. The first line is the digest of all that the rows depend on.
"""

import json
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from hone_trainer.data.encoded import EncodedChunk
from hone_trainer.data.prepared import SPLITS
from hone_trainer.data.token_checks import TokenChecks
from hone_trainer.data.token_rows import SplitRows, Tokenized

JOURNAL = "journal.jsonl"
_KEY_BYTES = 16


class Journal:
    """The streams and the journal of a directory, opened where the last whole chunk ends.

    Args:
        raw: the directory.
        digest: of all that the rows depend on; a journal of another one is not continued.
        heads: what each stream begins with, by split.
        checks: of the tokenizer.

    Attributes:
        done: the chunks that are written, in their order, without their rows' tokens.
    """

    def __init__(self, raw: Path, digest: str, heads: dict[str, bytes], checks: TokenChecks) -> None:
        self.done: list[EncodedChunk] = []
        self._checks, self._stack = checks, ExitStack()
        for name in (*(f"{split}.arrow" for split in SPLITS), JOURNAL):
            if (raw / name).is_symlink() or not (raw / name).is_file():
                (raw / name).unlink(missing_ok=True)
                (raw / name).touch()
        self._streams = {split: self._stack.enter_context((raw / f"{split}.arrow").open("r+b")) for split in SPLITS}
        self._journal = self._stack.enter_context((raw / JOURNAL).open("r+b"))
        if not self._begins_alike(digest, heads):
            for file in (*self._streams.values(), self._journal):
                file.seek(0)
                file.truncate()
            for split, head in heads.items():
                self._streams[split].write(head)
            self._journal.write(_line({"digest": digest}))
        self._replay()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, chunk: EncodedChunk) -> None:
        """Write a chunk."""
        sums = {}
        for split, batch in chunk.batches.items():
            self._streams[split].write(batch)
            self._streams[split].flush()
            sums[split] = [len(batch), zlib.crc32(batch)]
        self._journal.write(_line({"streams": sums, **_to_json(chunk)}))
        self._journal.flush()

    def finish(self, end: bytes) -> None:
        """Write what ends each stream."""
        for file in self._streams.values():
            file.write(end)

    def _begins_alike(self, digest: str, heads: dict[str, bytes]) -> bool:
        same = all(self._streams[split].read(len(head)) == head for split, head in heads.items())
        return same and self._journal.readline() == _line({"digest": digest})

    def _replay(self) -> None:
        """Read the chunks that are whole, and cut off what comes after them."""
        end = self._journal.tell()
        ends = {split: file.tell() for split, file in self._streams.items()}
        for line in self._journal:
            chunk = self._whole(line)
            if chunk is None:
                break
            self.done.append(chunk)
            end += len(line)
            ends = {split: file.tell() for split, file in self._streams.items()}
        for file, place in ((self._journal, end), *((self._streams[split], ends[split]) for split in SPLITS)):
            file.seek(place)
            file.truncate()

    def _whole(self, line: bytes) -> EncodedChunk | None:
        """The chunk of a line; None if the line or what it lists was not written to its end."""
        try:
            entry = json.loads(line)
            for split, (size, checksum) in entry["streams"].items():
                if zlib.crc32(_read(self._streams[split], size)) != checksum:
                    return None
            return _from_json(entry, self._checks)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _read(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ValueError("the stream is shorter")
    return content


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _to_json(chunk: EncodedChunk) -> dict[str, Any]:
    rows, checks = chunk.rows, chunk.checks
    return {
        "rows": {split: _rows_to_json(rows.splits[split]) for split in chunk.batches},
        "learnsToStop": rows.learns_to_stop,
        "example": rows.example,
        "outline": rows.outline,
        "checks": [[*key, count] for key, count in checks.counts.items()],
        "ends": [*checks.ends.items()],
        "faults": chunk.faults,
        "notes": dict(chunk.notes),
        "count": chunk.count,
    }


def _rows_to_json(rows: SplitRows) -> list[Any]:
    return [[*rows.lengths], [*rows.first_trained], b"".join(rows.keys).hex(), rows.places, [*rows.copies]]


def _from_json(entry: dict[str, Any], checks: TokenChecks) -> EncodedChunk:
    splits = {split: SplitRows() for split in SPLITS}
    for split, (lengths, first, keys, places, copies) in entry["rows"].items():
        rows, joined = splits[split], bytes.fromhex(keys)
        rows.lengths.extend(lengths)
        rows.first_trained.extend(first)
        rows.copies.extend(copies)
        rows.keys += [joined[i : i + _KEY_BYTES] for i in range(0, len(joined), _KEY_BYTES)]
        rows.places += places
    counted = checks.empty()
    counted.counts.update({(sentence, token): count for sentence, token, count in entry["checks"]})
    counted.ends.update(dict(entry["ends"]))
    return EncodedChunk(
        Tokenized(splits, entry["learnsToStop"], entry["example"], entry["outline"]),
        counted,
        faults=[(reason, place) for reason, place in entry["faults"]],
        notes=Counter(entry["notes"]),
        count=entry["count"],
    )
