"""Small files of every kind and format, right and wrong: read, or refused with file, row and remedy."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from data_files import GOOD_ROWS, KINDS, Row, json_array, json_lines, parquet, save_folder, table, write, zstd

from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.settings import DataFormat
from hone_trainer.data import readers
from hone_trainer.data.classes import find_classes
from hone_trainer.data.formats import COLUMNS
from hone_trainer.data.read import rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import Source, find_source
from hone_trainer.data.survey import Survey, good_samples, survey
from hone_trainer.protocol.errors import BadInput, RowFault

AUTO = DataFormat.AUTO
GOOD = GOOD_ROWS[DataFormat.PROMPT_COMPLETION][0]


def look(source: Source, *formats: DataFormat) -> Survey:
    return survey([source], AUTO, 0, 0, (*OBJECTIVES[Objective.SFT].data.formats, *formats))


def samples(source: Source, *formats: DataFormat) -> list[Sample]:
    return [sample for _, sample in good_samples([source], look(source, *formats).format)]


def test_every_format_has_rows_here() -> None:
    assert set(GOOD_ROWS) == set(COLUMNS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("format", GOOD_ROWS)
def test_every_format_is_detected_in_every_kind_of_file(tmp_path: Path, format: DataFormat, name: str) -> None:
    source = find_source("train", str(write(tmp_path / name, GOOD_ROWS[format])))
    surveyed = look(source, format)
    assert (surveyed.format, surveyed.faults.summary(), len(surveyed.refs)) == (format, [], 2)
    lines = find_source("train", str(write(tmp_path / "rows.jsonl", GOOD_ROWS[format])))
    assert samples(source, format) == samples(lines, format)


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_is_told_by_the_content_where_the_name_tells_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows").write_bytes(KINDS[name]([GOOD]))
    assert samples(find_source("train", str(tmp_path / "rows"))) == [Sample(**GOOD)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("rows.csv", json_lines([GOOD]), id="JSON Lines named CSV"),
        pytest.param("rows.jsonl", json_array([GOOD]), id="an array named JSON Lines"),
        pytest.param("rows.json", json_lines([GOOD, GOOD]), id="JSON Lines named JSON"),
        pytest.param("rows.jsonl", parquet([GOOD]), id="Parquet named JSON Lines"),
        pytest.param("rows.csv", gzip.compress(table([GOOD])), id="compressed without saying so"),
        pytest.param("rows.gz", gzip.compress(json_lines([GOOD])), id="compressed, and nothing else said"),
        pytest.param("rows.jsonl.gz", gzip.compress(b"") + gzip.compress(json_lines([GOOD])), id="two gzip members"),
        pytest.param("rows.jsonl.zst", zstd(json_lines([GOOD])) + zstd(b"\n"), id="two zstd frames"),
        pytest.param("rows.jsonl", b'{"prompt": \n' + json_lines([GOOD]), id="a broken first line"),
        pytest.param("rows.jsonl", b"\xef\xbb\xbf\n" + json_lines([GOOD]), id="a byte order mark"),
        pytest.param("rows.csv", b"\xef\xbb\xbf" + table([GOOD]), id="CSV with a byte order mark"),
        pytest.param("rows.json", b"\xef\xbb\xbf" + json_array([GOOD]), id="an array with a byte order mark"),
        pytest.param("rows.csv", b"\n\n" + table([GOOD]).replace(b"\r\n", b"\n\n"), id="CSV with blank lines"),
        pytest.param("rows.csv", b"sep=;\r\n" + table([GOOD], ";"), id="Excel's first line"),
        pytest.param("rows.csv", b'\xef\xbb\xbf"sep=|"\n' + table([GOOD], "|"), id="another separator of Excel's"),
        pytest.param("rows.csv", b' prompt ,completion\n"one, two,"," three"\n', id="spaces around names"),
        pytest.param("rows.csv", b',prompt,completion\n0,"one, two,", three\n', id="an index without a name"),
    ],
)
def test_a_file_is_read_as_what_it_holds(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert Sample(**GOOD) in samples(find_source("train", str(tmp_path / name)))


OBJECT = json.dumps({"data": [GOOD]}, indent=2).encode()
case = pytest.param
REFUSED = [
    case("rows.json", OBJECT, "rows.json begins with a JSON object that spans several", "one array", id="{"),
    case("rows.json", json.dumps({"data": [GOOD]}).encode(), "have `data`", "as one array", id="one object"),
    case("rows.jsonl", json.dumps(GOOD, indent=1).encode() * 2, "spans several lines", "jq -c", id="spread rows"),
    case("rows.json", json_array([GOOD])[:-9], "rows.json: line 4, column", "Fix it", id="an array cut off"),
    case("rows.json", b'["\xff"]', "rows.json: line 1 is not UTF-8", "as UTF-8", id="an array in Latin-1"),
    case("rows.json", b"[" * 100_000, "nested too deeply", "flat", id="an array in arrays"),
    case("rows.json", b'["a", "b"]', "at rows.json:row 1: not a JSON object", "each row as", id="strings"),
    case("rows.json", b"[]", "rows.json has no rows", "Use JSON Lines", id="an empty array"),
    case("rows.json", b'{"prompt":{"0":"a","1":"b"},"completion":{"0":"c"}}', "by columns", "orient", id="pandas"),
    case("rows.json", b'{"columns":["prompt"],"index":[0],"data":[["a"]]}', "by columns", "orient", id="pandas' split"),
    case("rows.json", b'{"0":{"prompt":"a","completion":"b"}}', "by columns or by index", "orient", id="by index"),
    case("notes.md", b"Well, this is prose.\nAnd so on, and on.\n", "is plain text, not rows", "*.txt", id="prose"),
    case("notes", b"It is one long line of words\n", "is plain text, not rows", "as a row", id="words"),
    case("rows.jsonl", b"hello\nworld\n", "first at rows.jsonl:1: not JSON", "each row as", id="text"),
    case("rows.jsonl", b"", "rows.jsonl has no rows", "Use JSON Lines", id="an empty file"),
    case("rows.csv", b"", "rows.csv has no rows", "Use JSON Lines", id="an empty CSV"),
    case("rows.csv", b"prompt,completion\n", "rows.csv has no rows", "Use JSON Lines", id="a header alone"),
    case(
        "rows.csv",
        b"one two,three\nfour,five\n",
        "one of 7 characters, `three`",
        "must name the columns",
        id="no header",
    ),
    case("rows.csv", b"prompt,prompt\na,b\n", "names the column `prompt` twice", "a different name", id="twice"),
    case("rows.csv", b'prompt,completion\na,b\n"c,d\ne,f\n', "rows.csv: line 3 begins a row", "Quote", id="open"),
    case("rows.csv", b'prompt,completion\n"a "b" c",d\n', "rows.csv: line 2 begins", '"a ""b""', id="quotes"),
    case("rows.csv", b"prompt,completion\na,b,c\n", "2: the row has more or fewer cells", "each row as", id="cells"),
    case("rows.csv", b"prompt,completion\n\xff,b\n", "rows.csv:2: not UTF-8", "each row as", id="Latin-1"),
    case("rows.csv", table([GOOD]).decode().encode("utf-16"), "is UTF-16 text", "as UTF-8", id="UTF-16"),
    case("rows.parquet", parquet([GOOD])[:-20] + b"x" * 20, "rows.parquet is damaged", "copy it", id="Parquet"),
    case("rows.parquet", parquet([{"prompt": 1}]), "the rows have `prompt`", '"completion"', id="one column"),
    case("rows.gz", gzip.compress(json_lines([GOOD] * 99))[:-20], "rows.gz is damaged", "copy it", id="cut gzip"),
    case("rows.zst", zstd(json_lines([GOOD] * 99))[:-9], "rows.zst is damaged", "copy it", id="cut zstd"),
    case("rows.gz", gzip.compress(parquet([GOOD])), "is Parquet compressed with gzip", "Decompress", id="twice"),
    case("rows.xlsx", b"PK\x03\x04....", "rows.xlsx is a zip archive or a workbook", "as CSV", id="a workbook"),
    case("rows.bz2", b"BZh91AY", "is compressed with bzip2", "with gzip or zstd", id="bzip2"),
    case("rows.tar", b"rows" + b"\0" * 253 + b"ustar", "rows.tar is a tar archive", "Unpack it", id="tar"),
    case("rows.bin", b"\x80\x04\x95\0\0", "binary file of an unknown kind", "Use JSON Lines", id="a pickle"),
    case("rows.csv", b"<!DOCTYPE html>\n<html>", "is an HTML page", "Download the file itself", id="HTML"),
    case("rows.jsonl", b"version https://git-lfs.github.com/spec/v1", "Git LFS", "git lfs pull", id="a pointer"),
]


@pytest.mark.parametrize(("name", "content", "message", "hint"), REFUSED)
def test_a_wrong_file_is_refused_with_its_name_the_row_and_the_remedy(
    tmp_path: Path, name: str, content: bytes, message: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        look(find_source("train", str(tmp_path / name)))
    assert error.value.field == "spec.dataset.train"
    assert message in error.value.message
    assert name in error.value.message or "the rows have" in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("rows.jsonl", "rows.jsonl:3"),
        ("rows.json", "rows.json:row 3"),
        ("rows.csv", "rows.csv:5"),
        ("rows.tsv", "rows.tsv:5"),
        ("rows.parquet", "rows.parquet:row 3"),
        ("stream.arrow", "stream.arrow:row 3"),
        ("rows.csv.gz", "rows.csv.gz:5"),
        ("rows.jsonl.zst", "rows.jsonl.zst:3"),
    ],
)
def test_a_bad_row_is_told_by_its_place_and_the_others_are_used(tmp_path: Path, name: str, place: str) -> None:
    # The second row's line break makes a table's third row begin one line later.
    records = [GOOD, {"prompt": "two\nlines", "completion": "c"}, {"prompt": "p", "completion": " "}, GOOD]
    source = find_source("train", str(write(tmp_path / name, records)))
    (bad,) = look(source).faults.summary()
    assert (bad.reason, bad.count, bad.first) == ("`completion` is empty", 1, place)
    assert len(samples(source)) == 3
    assert [where for where, _ in rows(source)] == [where for where, _ in rows(source)]


def test_numbers_that_name_classes_are_ordered_as_numbers_in_every_kind(tmp_path: Path) -> None:
    records: list[Row] = [{"text": f"t {i}", "label": i} for i in (10, 9, 2)]
    for name in KINDS:
        surveyed = look(find_source("train", str(write(tmp_path / name, records))))
        assert find_classes(surveyed.refs).names == ("2", "9", "10"), name


def test_lists_in_cells_are_messages_only_if_they_look_like_it(tmp_path: Path) -> None:
    records = [{"prompt": "List two.", "completion": text} for text in ("[1, 2]", '[{"a": 1}]', "[1,", "[]", "[x]")]
    source = find_source("train", str(write(tmp_path / "rows.csv", records)))
    assert [sample.completion for sample in samples(source)] == [row["completion"] for row in records]


def test_pairs_of_conversations_in_cells_are_read(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Is it?"}]
    records = [{f: [*prompt, {"role": "assistant", "content": f}] for f in ("chosen", "rejected")}]
    (sample,) = samples(find_source("train", str(write(tmp_path / "rows.csv", records))))
    assert (sample.messages[1]["content"], sample.completion_start) == ("chosen", 1)


def test_python_s_own_writing_of_lists_in_cells_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"messages\n\"[{'role': 'user', 'content': 'a'}]\"\n")
    with pytest.raises(BadInput, match="`messages` is a list of messages as Python writes it"):
        look(find_source("train", str(tmp_path / "rows.csv")))


def test_a_long_line_spoils_only_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 100)
    long = {"prompt": "p", "completion": "c" * 1000}
    (tmp_path / "rows.jsonl").write_bytes(json_lines([GOOD, long, GOOD]))
    surveyed = look(find_source("train", str(tmp_path / "rows.jsonl")))
    assert [(bad.count, bad.first) for bad in surveyed.faults.summary()] == [(1, "rows.jsonl:2")]
    assert len(surveyed.refs) == 2


@pytest.mark.parametrize("long", [1, 3], ids=["the first", "a later one"])
def test_a_table_with_a_line_that_never_ends_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: int
) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 100)
    lines = [b"prompt,completion", b"p,c", b"p,c"]
    lines[long - 1] = b",".join([b"c" * 10] * 1000)
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(BadInput, match=rf"rows\.csv: line {long} is longer than"):
        list(rows(find_source("train", str(tmp_path / "rows.csv"))))


def test_a_large_array_is_refused_with_what_to_write_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ARRAY_BYTES", 100)
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(json_array([GOOD] * 10)))
    with pytest.raises(BadInput) as error:
        look(find_source("train", str(tmp_path / "rows.json.gz")))
    assert "rows.json.gz: a JSON array may have at most" in error.value.message
    assert "Write it as JSON Lines" in (error.value.hint or "")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.jsonl.gz", "rows.csv.zst", "rows.parquet"])
@pytest.mark.slow
def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path, name: str) -> None:
    count, size = 8000, 1000
    records = [{"prompt": f"{i} " + "x" * size, "completion": "c"} for i in range(count)]
    source = find_source("train", str(write(tmp_path / name, records)))
    del records
    next(iter(rows(source)))  # what is imported only now is no row
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows(source)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * size / 2


def test_the_folder_of_a_saved_data_set_is_read_in_its_order(tmp_path: Path) -> None:
    records: list[Row] = [{"text": f"t {i}", "label": i % 3} for i in range(25)]
    source = find_source("train", str(save_folder(tmp_path / "saved", records)))
    assert [file.name for file in source.files] == [f"saved/data-0000{i}-of-00002.arrow" for i in range(2)]
    assert [row for _, row in rows(source)] == records
    assert [where for where, _ in rows(source)][12:14] == [
        "saved/data-00000-of-00002.arrow:row 13",
        "saved/data-00001-of-00002.arrow:row 1",
    ]


def test_the_names_of_classes_that_a_saved_data_set_knows_are_used(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    dataset = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "rows.parquet"))
    for path in ("saved", "rows.parquet"):
        source = find_source("train", str(tmp_path / path))
        assert [row["label"] for _, row in rows(source) if not isinstance(row, RowFault)] == ["good", "bad", None]


def test_names_of_classes_are_used_only_for_columns_that_still_hold_their_numbers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {"a": {"names": ["x", "y"], "_type": "ClassLabel"}, "turns": [{"role": {"_type": "Value"}}]}
    known |= dict.fromkeys(("as_text", "taken_out"), known["a"])
    table = pa.table({"a": [1, 0], "as_text": ["one", "two"]})
    metadata = {"huggingface": json.dumps({"info": {"features": known}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    stored = [row for _, row in rows(find_source("train", str(tmp_path / "rows.parquet")))]
    assert stored == [{"a": "y", "as_text": "one"}, {"a": "x", "as_text": "two"}]


def test_values_that_a_saved_data_set_keeps_as_json_are_read(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Json, List

    turns: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
    ]
    Dataset.from_dict({"messages": turns}, features=Features({"messages": List(Json())})).save_to_disk(
        str(tmp_path / "saved")
    )
    assert [row for _, row in rows(find_source("train", str(tmp_path / "saved")))] == [{"messages": turns[0]}]


@pytest.mark.parametrize(("name", "place"), [("rows.jsonl", "rows.jsonl:2"), ("rows.json", "rows.json:row 2")])
def test_half_a_character_spoils_only_its_row(tmp_path: Path, name: str, place: str) -> None:
    half = {**GOOD, "completion": "cut \ud83d"}
    whole = {**GOOD, "completion": "\ud83d\ude00 \\ud83d"}
    lines = [json.dumps(row) for row in (GOOD, half, whole)]
    content = "\n".join(lines) if name.endswith("l") else f"[{', '.join(lines)}]"
    (tmp_path / name).write_text(content)
    surveyed = look(find_source("train", str(tmp_path / name)))
    (bad,) = surveyed.faults.summary()
    assert ("half of a character" in bad.reason, bad.count, bad.first) == (True, 1, place)
    assert len(surveyed.refs) == 2


def texts(source: Source) -> dict[str, str]:
    surveyed = look(source)
    assert surveyed.format is DataFormat.TEXT
    return {place: sample.prompt for place, sample in good_samples([source], DataFormat.TEXT)}


def test_a_text_file_is_one_document_and_a_long_one_several(tmp_path: Path) -> None:
    paragraph = 'It works: "really", he said, {once}.\n' * 200 + "\n"
    (tmp_path / "long.txt").write_text(paragraph * 100)
    (tmp_path / "note.txt").write_text("\ufeff[1] A note,\nof two lines.\n")
    (tmp_path / "one-line.txt").write_text("word " * 50_000)
    (tmp_path / "README.txt").write_text("no data")
    source = find_source("train", str(tmp_path))
    assert [file.name for file in source.files] == ["long.txt", "note.txt", "one-line.txt"]
    documents = texts(source)
    assert documents["note.txt:1"] == "[1] A note,\nof two lines.\n"
    parts = [text for place, text in documents.items() if place.startswith("long")]
    assert "".join(parts) == paragraph * 100
    assert len(parts) > 5
    assert all(part.endswith("\n\n") and len(part) >= readers.DOCUMENT_BYTES for part in parts[:-1])
    assert list(documents)[1] == f"long.txt:{parts[0].count(chr(10)) + 1}"
    assert len(documents["one-line.txt:1"]) == 250_000


def test_rows_in_a_file_that_is_named_text_stay_rows(tmp_path: Path) -> None:
    for write_rows in (json_lines, json_array, table):
        (tmp_path / "rows.txt").write_bytes(write_rows([GOOD]))
        assert samples(find_source("train", str(tmp_path / "rows.txt"))) == [Sample(**GOOD)]


def test_text_next_to_rows_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Well, this is prose.\n")
    write(tmp_path / "rows.jsonl", [GOOD])
    source = find_source("train", str(tmp_path))
    assert ([file.name for file in source.files], source.unread) == (["rows.jsonl"], ("notes.txt",))


def test_a_part_of_a_text_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"coffee\n"))
    source = find_source("train", str(tmp_path / "*.tx*"))
    with pytest.raises(BadInput, match=r"a\.txt can be used.*not UTF-8"):
        look(source)
    assert texts(find_source("train", str(tmp_path / "b.txt.gz"))) == {"b.txt.gz:1": "coffee\n"}
