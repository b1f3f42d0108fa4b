"""Rows of every format, and every kind of file that they may lie in, for tests of how data are read."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hone.contract.settings import DataFormat

Row = dict[str, Any]

_USER, _ANSWER = (
    {"role": "user", "content": 'Is it "good", or\nnot? 灯'},
    {"role": "assistant", "content": "Yes, it is."},
)

GOOD_ROWS: dict[DataFormat, list[Row]] = {
    DataFormat.MESSAGES: [
        {"messages": [_USER, _ANSWER]},
        {"messages": [{"role": "system", "content": "Be brief."}, _USER, _ANSWER, _USER, _ANSWER]},
    ],
    DataFormat.SHARE_GPT: [
        {"conversations": [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}], "system": ""},
        {"conversations": [{"from": "human", "value": "No?"}, {"from": "gpt", "value": "No."}], "system": "Be brief."},
    ],
    DataFormat.ALPACA: [
        {"instruction": "Tell the opposite.", "input": "good", "output": "bad"},
        {"instruction": "Greet me, and\nmy cat.", "input": "", "output": 'You are "greeted"; meow.'},
    ],
    DataFormat.UNPAIRED_PREFERENCE: [
        {"prompt": "one, two,", "completion": " three", "label": True},
        {"prompt": "one, two,", "completion": " four", "label": False},
    ],
    DataFormat.PREFERENCE: [
        {"prompt": "one, two,", "chosen": " three", "rejected": " four"},
        {"prompt": 'Say "no".', "chosen": '"No."', "rejected": "Yes,\nno."},
    ],
    DataFormat.PROMPT_COMPLETION: [
        {"prompt": "one, two,", "completion": " three"},
        {"prompt": "a\tb", "completion": " [1, 2]"},
    ],
    DataFormat.TEXT_LABEL: [
        {"text": "It works; really.", "label": "good"},
        {"text": "It broke.", "label": "bad"},
    ],
    DataFormat.PROMPT: [
        {"prompt": [_USER], "reference": 'Yes, "it" is.'},
        {"prompt": [{"role": "system", "content": "Be brief."}, _USER, _ANSWER, _USER], "reference": "No."},
    ],
    DataFormat.TEXT: [
        {"text": "It works; really.\n\n    But not\tyet."},
        {"text": '{"no": "markup"}, "quoted"'},
    ],
}
"""Two rows of every format, with what is awkward in tables: quotation marks, commas, line breaks, lists."""


def json_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_array(rows: list[Row]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=2).encode()


def table(rows: list[Row], delimiter: str = ",") -> bytes:
    """CSV, with lists as JSON."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values())
    return text.getvalue().encode()


def zstd(data: bytes) -> bytes:
    import pyarrow as pa

    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


def parquet(rows: list[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def arrow(rows: list[Row], stream: bool = False) -> bytes:
    import pyarrow as pa

    table, out = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


KINDS: dict[str, Callable[[list[Row]], bytes]] = {
    "rows.jsonl": json_lines,
    "rows.json": json_array,
    "rows.csv": table,
    "rows.tsv": lambda rows: table(rows, "\t"),
    "semicolons.csv": lambda rows: table(rows, ";"),
    "rows.parquet": parquet,
    "file.arrow": arrow,
    "stream.arrow": lambda rows: arrow(rows, stream=True),
    "rows.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
    "rows.json.gz": lambda rows: gzip.compress(json_array(rows)),
    "rows.csv.gz": lambda rows: gzip.compress(table(rows)),
    "rows.jsonl.zst": lambda rows: zstd(json_lines(rows)),
    "rows.csv.zst": lambda rows: zstd(table(rows)),
}
"""Every kind of file by a name for it, with what writes it."""


def write(path: Path, rows: list[Row]) -> Path:
    """Write rows in the kind that the file's name stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(KINDS[path.name](rows))
    return path


def save_folder(path: Path, rows: list[Row]) -> Path:
    """A folder with rows in two shards, as `Dataset.save_to_disk` writes it."""
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(str(path), num_shards=min(2, len(rows)))
    return path
