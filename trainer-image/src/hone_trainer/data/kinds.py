"""Kinds of data files: detected by a file's first bytes, else by its name; other files are rejected with a remedy."""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Protocol

from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import open_file


class Kind(StrEnum):
    """How a file holds its rows."""

    JSONL = "JSON Lines"
    JSON = "a JSON array"
    CSV = "CSV"
    PARQUET = "Parquet"
    ARROW = "Arrow"
    TEXT = "plain text"


REMEDY = "Use JSON Lines (one object per line), a JSON array, CSV, TSV, Parquet, or a directory that datasets saved."
BROKEN = (EOFError, OSError, NotImplementedError, ValueError, zlib.error)
"""What gzip, pyarrow and the codecs raise where a file is damaged; pyarrow's own errors are kinds of these."""

TEXT_EXPANSION, TABLE_EXPANSION = 200, 1000
"""How many times its size a compressed text may expand to, and a table, which stores equal values once."""
MIN_EXPANSION = 256 << 20
"""Bytes that a file may expand to in any case. More is no data, but made to fill the memory or time of its reader."""
_HEAD = 1 << 16
_BOM = b"\xef\xbb\xbf"
_TEXT_SUFFIXES = {
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
    ".json": Kind.JSONL,
    ".csv": Kind.CSV,
    ".tsv": Kind.CSV,
}
PROSE_SUFFIX = ".txt"
"""Of files that may be documents instead of rows."""
_SUFFIXES = (*_TEXT_SUFFIXES, ".parquet", ".arrow", PROSE_SUFFIX)
_CODEC_SUFFIXES = (".gz", ".zst")

_BY_COLUMNS = re.compile(r'\{\s*(?:"[^"]{1,200}"\s*:\s*\{\s*"0"\s*:|"0"\s*:\s*\{|"columns"\s*:\s*\[)')
"""How the JSON begins that pandas' `to_json` writes by columns, by index, and with orient='split'."""
_OBJECTS = re.compile(r"\[?\s*\{\s*\"")
"""How rows as JSON begin."""
_NAMES = re.compile(r"\"?\w+\"?([,;\t]\"?\w+\"?)+")
"""The first line of a table whose columns have plain names."""
_TABLES = {b"PAR1": Kind.PARQUET, b"ARROW1": Kind.ARROW, b"\xff\xff\xff\xff": Kind.ARROW}
"""Binary kinds, by their first bytes; the last is Arrow's stream format, which datasets writes."""

# Files that are often mistaken for data, by their first bytes in lower case, with what to do about them.
_REFUSED = {
    b"pk\x03\x04": ("a zip archive or a workbook", "Unpack the archive, or save the workbook as CSV."),
    b"bzh": ("compressed with bzip2", "Compress it with gzip or zstd, or not at all."),
    b"\xfd7zxz": ("compressed with xz", "Compress it with gzip or zstd, or not at all."),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "Fetch the file with git lfs pull."),
    b"<!doctype": ("an HTML page", "Download the file itself, not the page that shows it."),
    b"<html": ("an HTML page", "Download the file itself, not the page that shows it."),
}


class _Readable(Protocol):
    """What is used of a decompressor."""

    def readinto(self, buffer: Any) -> int | None: ...

    def close(self) -> None: ...


class FileFault(Exception):
    """The rest of a file cannot be read.

    Args:
        message: what is wrong, beginning with the place within the file where there is one.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def expansion_limit(size: int, factor: int) -> int:
    """How many bytes a file of that size may expand to."""
    return factor * size + MIN_EXPANSION


def too_large(what: str) -> FileFault:
    """The error for a file that holds far more than its size, such as `100 MiB`."""
    return FileFault(
        f"it expands to more than {what}, hundreds of times its size",
        "Check the file. If it is right, store the rows as JSON Lines without compression.",
    )


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends with a FileFault at its limit."""

    def __init__(self, stream: "_Readable", limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        count = int(self._stream.readinto(buffer) or 0)
        self._left -= count
        if self._left < 0:
            raise too_large(f"{self._limit >> 20} MiB")
        return count

    def close(self) -> None:
        """Close the decompressor."""
        if not self.closed:
            self._stream.close()
        super().close()


def _bounded(source: BinaryIO, stream: "_Readable") -> BinaryIO:
    """The decompressed stream of a file, which ends where the file expands too far."""
    return io.BufferedReader(_Bounded(stream, expansion_limit(os.fstat(source.fileno()).st_size, TEXT_EXPANSION)))


def _plain(stream: BinaryIO) -> BinaryIO:
    return stream


def _gzip(stream: BinaryIO) -> BinaryIO:
    return _bounded(stream, gzip.GzipFile(fileobj=stream))


def _zstd(stream: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return _bounded(stream, pa.CompressedInputStream(stream, "zstd"))


_CODECS: dict[bytes, tuple[str, Callable[[BinaryIO], BinaryIO]]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
}
"""Compressions by their first bytes: name, and what decompresses. Files of several members or frames are read whole."""


@dataclass(frozen=True)
class DataFile:
    """A file with rows.

    Attributes:
        path: where it lies.
        name: what messages call it: its path below the directory that was named.
        kind: how it holds its rows.
        volume: the root of its volume, which no link leads out of.
        field: the spec's field that names it, for errors.
        decompress: from its bytes to those of its text.
    """

    path: Path
    name: str
    kind: Kind
    volume: Path
    field: str
    decompress: Callable[[BinaryIO], BinaryIO] = _plain

    def open_raw(self) -> BinaryIO:
        """Its bytes as they are stored, from the first."""
        return open_file(self.path.parent, self.path.name, self.field, self.volume)

    def open(self) -> BinaryIO:
        """Its bytes, decompressed, from the first."""
        return self.decompress(self.open_raw())


def suffix_of(path: PurePath) -> str | None:
    """The suffix that names a kind of data file, such as `.csv` of `rows.csv.gz`; None where there is none."""
    path = path.with_suffix("") if path.suffix.lower() in _CODEC_SUFFIXES else path
    return path.suffix.lower() if path.suffix.lower() in _SUFFIXES else None


def data_file(field: str, path: Path, name: str, volume: Path) -> DataFile:
    """See what kind of file it is.

    Args:
        field: the spec's field that names it, for errors.
        path: the file.
        name: what messages call it.
        volume: the root of its volume, which no link leads out of.

    Raises:
        BadInput: it cannot be read, or holds no rows of any kind.
    """
    file = DataFile(path, name, Kind.JSONL, volume, field)
    try:
        with file.open_raw() as stream:
            head = stream.read(_HEAD)
        codec = next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)
        if codec:
            file = replace(file, decompress=codec[1])
            with file.open() as stream:
                head = stream.read(_HEAD)
    except BROKEN as error:
        raise damaged(field, name, error) from error
    table = next((kind for magic, kind in _TABLES.items() if head.startswith(magic)), None)
    if table and codec:
        raise BadInput(
            field, f"{name} is {table} compressed with {codec[0]}", "Decompress it: only text may be compressed."
        )
    if table:
        return replace(file, kind=table)
    _refuse(field, name, head)
    _refuse_other_text(field, name, head)
    return replace(file, kind=_text_kind(field, name, head))


def damaged(field: str, name: str, error: BaseException) -> BadInput:
    """The error for a file that cannot be read as what it says it is.

    Raises:
        OSError: it is the volume that cannot be read, which may be better next time.
    """
    if isinstance(error, PermissionError):
        return BadInput(field, f"{name} cannot be read by the pod's user", "Let all users read it (chmod a+r).")
    if isinstance(error, OSError) and error.errno:
        raise error
    return BadInput(field, f"{name} is damaged: {str(error) or type(error).__name__}", "Create or copy it again.")


def _refuse(field: str, name: str, head: bytes) -> None:
    start = head.removeprefix(_BOM).lstrip()[:64].lower()
    for magic, (what, remedy) in _REFUSED.items():
        if start.startswith(magic):
            raise BadInput(field, f"{name} is {what}", remedy)
    if head[257:262] == b"ustar":
        raise BadInput(field, f"{name} is a tar archive", "Unpack it.")
    if b"\0" in head:
        raise BadInput(field, f"{name} is a binary file of an unknown kind", REMEDY)


def _refuse_other_text(field: str, name: str, head: bytes) -> None:
    """Refuse what begins as JSON or a table does, but holds no rows."""
    text = head.removeprefix(_BOM).decode(errors="replace").lstrip()
    if _BY_COLUMNS.match(text):
        raise BadInput(
            field,
            f"{name} is one JSON object that holds its rows by columns or by index, as pandas writes it",
            "Write it with to_json(path, orient='records', lines=True).",
        )
    line = text.partition("\n")[0]
    names = [cell.strip().strip('"') for cell in line.split(delimiter_of(line))]
    prose = any(len(cell.split()) > 3 or cell.endswith((".", "!", "?")) for cell in names)
    if suffix_of(PurePath(name)) is None and not text.startswith(("{", "[")) and prose:
        raise BadInput(
            field,
            f"{name} is plain text, not rows",
            'Write each text as a row of JSON Lines, such as {"prompt": "…", "completion": "…"}. To learn all of it, '
            'write {"text": "…"}, or name the file *.txt.',
        )


def _text_kind(field: str, name: str, head: bytes) -> Kind:
    """The kind of a text: by its first character, else by the file's name, else by its first line."""
    text = head.removeprefix(_BOM).decode(errors="replace").lstrip()
    if suffix_of(PurePath(name)) == PROSE_SUFFIX and not _begins_with_rows(text):
        return Kind.TEXT
    if text.startswith("["):
        return Kind.JSON
    if text.startswith("{"):
        if _spans_lines(text):
            raise BadInput(
                field,
                f"{name} begins with a JSON object that spans several lines",
                "Write the rows as one array, [{…}, {…}], or each object on a line of its own (jq -c does that).",
            )
        return Kind.JSONL
    suffix = suffix_of(PurePath(name))
    if suffix in _TEXT_SUFFIXES:
        return _TEXT_SUFFIXES[suffix]
    return Kind.CSV if delimiter_of(text.partition("\n")[0], "") else Kind.JSONL


def _begins_with_rows(text: str) -> bool:
    """Whether a text begins with an object or an array of them, or with the names of a table's columns."""
    return bool(_OBJECTS.match(text) or _NAMES.fullmatch(text.partition("\n")[0].strip()))


def _spans_lines(text: str) -> bool:
    """Whether the object at the start of a text continues after its first line. A broken line of many does not."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        return "\n" in text[:end]
    except (ValueError, RecursionError):
        line, _, rest = text.partition("\n")
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip()) and bool(rest.strip()) and not rest.lstrip().startswith("{")
    except RecursionError:
        pass
    return False


def delimiter_of(header: str, default: str = ",") -> str:
    """What separates the cells of a table's first line: the one of tab, comma and semicolon that it has most often."""
    unquoted = "".join(header.split('"')[::2])
    best = max("\t,;", key=unquoted.count)
    return best if best in unquoted else default
