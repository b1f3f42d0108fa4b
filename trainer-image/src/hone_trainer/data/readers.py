"""Reading each kind of data file as a stream of rows, with the place of each within its file."""

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from hone_trainer.data.kinds import TABLE_EXPANSION, DataFile, FileFault, Kind, delimiter_of, expansion_limit, too_large
from hone_trainer.data.turns import messages_in
from hone_trainer.protocol.errors import RowFault, plain_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROW_BYTES = 64 << 20
"""Most bytes of a line of JSON Lines, and most characters of a line or a cell of a table."""
MAX_ARRAY_BYTES = 256 << 20
"""Most bytes of a JSON array, which is held in memory as a whole, with some times as much for its objects."""
_BATCH = 1000
DOCUMENT_BYTES = 64 << 10
"""A file of plain text is divided into documents of about this size, so that its rows can be parted into splits."""
MIN_ROWS, ROWS_PER_BYTE = 1_000_000, 10
"""Rows that a table may have, in any case and for each byte of its file."""
_SEPARATOR = re.compile(r"\s*\"?sep=([^\s\"])\"?\s*", re.IGNORECASE)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""The JSON of one half of a character that UTF-16 writes as two."""
_DENSE = 50
"""A column that is compressed more than this many times may repeat a long value, which a batch of rows would hold as
often."""

_NOT_UTF8 = "not UTF-8: save the file as UTF-8"
_HALF_CHARACTER = (
    "a text ends with half of a character (a lone surrogate such as \\ud83d): it was cut in the middle of one"
)

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | RowFault]]
RawRows = Iterator[tuple[str, bytes | Row | RowFault]]


def _json_lines(file: DataFile) -> RawRows:
    with file.open() as stream:
        number = 0
        while line := stream.readline(MAX_ROW_BYTES):
            number += 1
            if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_ROW_BYTES)
                yield str(number), RowFault(f"longer than {MAX_ROW_BYTES >> 20} MiB")
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield str(number), line


def parsed(line: bytes) -> Row | RowFault:
    """The object in a line of JSON Lines, or what is wrong with it."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return RowFault(_NOT_UTF8)
    except (ValueError, RecursionError):
        return RowFault("not JSON: each line must be one JSON object")
    if _HALF.search(line) and not _encodable(value):
        return RowFault(_HALF_CHARACTER)
    return value if isinstance(value, dict) else RowFault("not a JSON object: each line must be {...}")


def _encodable(value: Any) -> bool:
    """Whether all characters of a JSON value are whole."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_array(file: DataFile) -> Rows:
    with file.open() as stream:
        text = stream.read(MAX_ARRAY_BYTES + 1)
    if len(text) > MAX_ARRAY_BYTES:
        raise FileFault(
            f"a JSON array may have at most {MAX_ARRAY_BYTES >> 20} MiB",
            "Write it as JSON Lines, one object per line (jq -c '.[]' does that), which is read row by row.",
        )
    try:
        values = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise FileFault(f"line {line} is not UTF-8", "Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise FileFault(
            f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}",
            "Fix it, or use JSON Lines, where a faulty line costs only its own row.",
        ) from error
    except RecursionError as error:
        raise FileFault("its values are nested too deeply", "Write flat rows.") from error
    halves = _HALF.search(text) is not None
    del text
    for number, value in enumerate(values, start=1):
        fault = RowFault("not a JSON object: each item of the array must be {...}")
        if halves and not _encodable(value):
            fault, value = RowFault(_HALF_CHARACTER), None
        yield f"row {number}", value if isinstance(value, dict) else fault


def _table(file: DataFile) -> Rows:
    csv.field_size_limit(MAX_ROW_BYTES)
    # Bytes that are no UTF-8 become lone surrogates, so that they spoil only their own row.
    with io.TextIOWrapper(file.open(), "utf-8-sig", errors="surrogateescape", newline="") as text:
        lines = _lines(text)
        skipped, first = 0, next(lines, "")
        separator = None
        while first and (not first.strip() or (separator is None and _SEPARATOR.fullmatch(first))):
            # Excel's own first line names what separates cells.
            separator = match[1] if (match := _SEPARATOR.fullmatch(first)) else separator
            skipped, first = skipped + 1, next(lines, "")
        reader = csv.reader(
            itertools.chain([first], lines) if first else lines,
            delimiter=separator or delimiter_of(first),
            strict=True,
        )
        header: list[str] | None = None
        start = skipped + 1
        try:
            for cells in reader:
                if header is None:
                    header = _header(cells)
                elif cells:
                    yield str(start), _cells(header, cells)
                start = skipped + reader.line_num + 1
        except csv.Error as error:
            # The start of the next row is unknown, so rows would silently be lost or mixed up.
            raise FileFault(
                f"line {start} begins a row whose end cannot be found: {error}",
                'Quote cells that hold quotation marks or line breaks, and double the marks within: "a ""b"" c".',
            ) from error


def _documents(file: DataFile) -> Rows:
    """A text as documents that end with a blank line, or with any line once they are twice as long."""
    with io.TextIOWrapper(file.open(), "utf-8-sig", errors="surrogateescape") as text:
        lines, size, first, number = list[str](), 0, 1, 0
        for number, line in enumerate(_lines(text), start=1):
            lines.append(line)
            size += len(line)
            if size >= DOCUMENT_BYTES and (not line.strip() or size >= 2 * DOCUMENT_BYTES):
                yield from _document(first, lines)
                lines, size, first = [], 0, number + 1
        yield from _document(first, lines)


def _document(first: int, lines: list[str]) -> Rows:
    text = "".join(lines)
    if not text.strip():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        yield str(first), RowFault(_NOT_UTF8)
        return
    yield str(first), {"text": text}


def _lines(text: TextIO) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_ROW_BYTES):
        number += 1
        if len(line) == MAX_ROW_BYTES and not line.endswith(("\n", "\r")):
            raise FileFault(f"line {number} is longer than {MAX_ROW_BYTES >> 20} MiB", "Put each row on its own line.")
        yield line


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise FileFault(
            f"the first line names the column {plain_names(twice[:1])} twice", "Give each column a different name."
        )
    return names


def _cells(header: list[str], cells: list[str]) -> Row | RowFault:
    if len(cells) != len(header):
        return RowFault("the row has more or fewer cells than the first line")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return RowFault(_NOT_UTF8)
    return {name: _cell(cell) for name, cell in zip(header, cells, strict=True)}


def _cell(cell: str) -> Any:
    """A cell as text; a list of messages where its text is the JSON of one."""
    return messages_in(cell) or cell


def _parquet(file: DataFile) -> Rows:
    import pyarrow.parquet as pq

    with file.open_raw() as stream, pq.ParquetFile(stream) as table:
        size = _size(stream)
        count = _rows_at_once(size, table.metadata)
        yield from _batches(size, table.schema_arrow, table.iter_batches(batch_size=count))


def _size(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_size


def _rows_at_once(size: int, metadata: "pq.FileMetaData") -> int:
    """How many rows are decoded at once: few where a short part of the file may stand for a long value in each row.

    Raises:
        FileFault: the file says itself that it expands too far.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    _check_size(size, sum(group.total_byte_size for group in groups), metadata.num_rows)
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    longest = max(
        (
            column.total_uncompressed_size
            for column in columns
            if column.total_uncompressed_size > _DENSE * max(1, column.total_compressed_size)
        ),
        default=0,
    )
    return max(1, min(_BATCH, MAX_ROW_BYTES // longest)) if longest else _BATCH


def _arrow(file: DataFile) -> Rows:
    import pyarrow as pa

    # The open file itself by its descriptor: its path may lead elsewhere by now.
    with file.open_raw() as source, pa.memory_map(f"/proc/self/fd/{source.fileno()}") as stream:
        if stream.read(6) == b"ARROW1":
            with pa.ipc.open_file(stream) as batches:
                each = (batches.get_batch(i) for i in range(batches.num_record_batches))
                yield from _batches(_size(source), batches.schema, each)
        else:
            stream.seek(0)
            with pa.ipc.open_stream(stream) as batches:
                yield from _batches(_size(source), batches.schema, batches)


def _batches(file_size: int, schema: "pa.Schema", batches: Iterable["pa.RecordBatch"]) -> Rows:
    classes = _class_names(schema)
    encoded = {field.name: field.type for field in schema if "arrow.json" in str(field.type)}
    number = size = count = 0
    for batch in batches:
        # A damaged file may say that a value lies beyond its end.
        batch.validate(full=True)
        size, count = size + batch.nbytes, count + batch.num_rows
        _check_size(file_size, size, count)
        for start in range(0, batch.num_rows, _BATCH):
            for row in batch.slice(start, _BATCH).to_pylist():
                number += 1
                for name, names in classes.items():
                    row[name] = _named(row[name], names)
                for name, kind in encoded.items():
                    row[name] = _decoded(row[name], kind)
                whole = not encoded or _encodable([row[name] for name in encoded])
                yield f"row {number}", row if whole else RowFault(_HALF_CHARACTER)


def _check_size(file_size: int, size: int, count: int) -> None:
    """Refuse a table with more bytes or rows than its file can hold as data.

    Raises:
        FileFault: so it is.
    """
    limit, most = expansion_limit(file_size, TABLE_EXPANSION), MIN_ROWS + ROWS_PER_BYTE * file_size
    if size > limit:
        raise too_large(f"{limit >> 20} MiB")
    if count > most:
        raise too_large(f"{most} rows")


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """The names of the classes by column, where `datasets` wrote the file and knew the column as a ClassLabel.

    This description stays in the file when other tools remove columns or change their types.
    """
    import pyarrow as pa

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"].items()
        described = {name: _element(each) for name, each in features}
        named = {name: each["names"] for name, each in described.items() if each.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    inner = {field.name: field.type.value_type if _is_list(field.type) else field.type for field in schema}
    return {name: names for name, names in named.items() if name in inner and pa.types.is_integer(inner[name])}


def _element(feature: Any) -> dict[str, Any]:
    """What a column holds by its description, or what its lists hold."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        feature = feature.get("feature")
    return feature if isinstance(feature, dict) else {}


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _named(value: Any, names: list[str]) -> Any:
    """The name of a class, or those of a list; None where there is none."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if value is not None and 0 <= value < len(names) else None


def _decoded(value: Any, kind: "pa.DataType") -> Any:
    """A value of Arrow's JSON type, or a list of them: `datasets` stores values so whose type differs between rows."""

    if value is None:
        return None
    if _is_list(kind):
        return [_decoded(item, kind.value_type) for item in value]
    return json.loads(value) if isinstance(value, str) and str(kind).startswith("extension<arrow.json") else value


READERS: dict[Kind, Callable[[DataFile], RawRows]] = {
    Kind.JSONL: _json_lines,
    Kind.JSON: _json_array,
    Kind.CSV: _table,
    Kind.PARQUET: _parquet,
    Kind.ARROW: _arrow,
    Kind.TEXT: _documents,
}
"""How each kind is read: every row that is not blank, its place within the file, and its object or what is wrong; of
JSON Lines the line, which `parsed` takes."""
