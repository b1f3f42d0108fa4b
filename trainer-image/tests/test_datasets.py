"""Data sets of the Hugging Face Hub: which files are the rows of a configuration and a split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, serving

from hone.contract.runconfig import Download
from hone_trainer.downloads.datasets import rows_of
from hone_trainer.downloads.download import ensure_downloaded
from hone_trainer.protocol.errors import BadInput

SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
CHAT = ["data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"]
CONVERTED = ["en/train/0000.parquet", "en/train/0001.parquet", "en/test/0000.parquet", "fr/train/0000.parquet"]
CARD = [
    {
        "config_name": "en",
        "data_files": [{"split": "train", "path": "en/*.jsonl"}, {"split": "dev", "path": ["d.csv"]}],
    },
    {"config_name": "fr", "data_files": "fr"},
    {"config_name": "de", "data_dir": "de"},
]
CARD_FILES = ["README.md", "en/a.jsonl", "en/b.jsonl", "d.csv", "fr/x.jsonl", "de/train.csv", "de/test.csv"]


def entry(field: str = "train", **fields: Any) -> Download:
    """The data set as a run reads it."""
    values = {"uri": "hf://datasets/acme/rows", "downloaded": "", "is_data": True, **fields}
    return Download.model_validate({"field": f"spec.dataset.{field}", **values}, by_name=True)


@pytest.mark.parametrize(
    ("names", "configs", "fields", "expected"),
    [
        (SHARDS, None, {}, SHARDS[:2]),
        (SHARDS, None, {"field": "test"}, SHARDS[2:]),
        (SHARDS, None, {"field": "validation", "split": "test"}, SHARDS[2:]),
        (CHAT, None, {"split": "train_sft"}, CHAT[:1]),
        (["a.jsonl", "b.jsonl", "README.md", ".git/x.jsonl"], None, {}, ["a.jsonl", "b.jsonl"]),
        (["train.csv", "validation.csv", "eval/x.csv"], None, {"field": "validation"}, ["validation.csv"]),
        (["train.csv", "dev/x.csv"], None, {"field": "validation"}, ["dev/x.csv"]),
        (["train.jsonl", "train.parquet"], None, {}, ["train.parquet"]),
        (CONVERTED, None, {"config": "en"}, CONVERTED[:2]),
        (CONVERTED, None, {"config": "fr", "field": "train.sources[3]"}, CONVERTED[3:]),
        (["default/train/0000.parquet", *CONVERTED], None, {}, ["default/train/0000.parquet"]),
        (["data/en/train.csv", "data/fr/train.csv"], None, {"config": "fr"}, ["data/fr/train.csv"]),
        (CARD_FILES, CARD, {"config": "en"}, ["en/a.jsonl", "en/b.jsonl"]),
        (CARD_FILES, CARD, {"config": "en", "split": "dev"}, ["d.csv"]),
        (CARD_FILES, CARD, {"config": "fr"}, ["fr/x.jsonl"]),
        (CARD_FILES, CARD, {"config": "de", "field": "test"}, ["de/test.csv"]),
        (CARD_FILES, [{**CARD[0], "default": True}, *CARD[1:]], {}, ["en/a.jsonl", "en/b.jsonl"]),
        (CARD_FILES, CARD[:1], {}, ["en/a.jsonl", "en/b.jsonl"]),
    ],
)
def test_the_files_of_a_split(names: list[str], configs: Any, fields: dict[str, str], expected: list[str]) -> None:
    assert rows_of(entry(**fields), names, configs) == expected


@pytest.mark.parametrize(
    ("names", "configs", "fields", "field", "words"),
    [
        (["rows.py", "README.md"], None, {}, "revision", "a loading script, which is code and is not run"),
        (["rows.zip", "x.bin"], None, {}, "revision", "has no Parquet"),
        (SHARDS, None, {"split": "all"}, "split", "no split 'all'; it has test, train"),
        (SHARDS, None, {"field": "validation"}, "split", "no split 'validation'"),
        (CONVERTED, None, {}, "config", "several configurations: en, fr"),
        (CONVERTED, None, {"config": "it"}, "config", "no configuration 'it'; it has en, fr"),
        (CARD_FILES, CARD, {}, "config", "several configurations: en, fr, de"),
        (SHARDS, None, {"config": "x"}, "config", "no configuration 'x'"),
        (SHARDS, [{"data_files": "*" * 300}], {}, "uri", "too long patterns"),
        (SHARDS, [{"data_files": "../../etc/*"}], {}, "split", "no split 'train'"),
        (SHARDS, ["words", 1], {}, "config", "several configurations: none"),
    ],
)
def test_what_a_data_set_lacks_is_named(
    names: list[str], configs: Any, fields: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        rows_of(entry(**fields), names, configs)
    assert caught.value.field == f"spec.dataset.{fields.get('field', 'train')}.{field}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one data set."""
    files = {name: name.encode() * 1000 for name in (*SHARDS, "README.md", "rows.py")}
    with serving(Hub(commits={COMMIT: files})) as server:
        yield server


@pytest.mark.slow
def test_a_split_is_downloaded_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    into = tmp_path / "data" / "a-train"
    result = ensure_downloaded(entry(downloaded=str(into), endpoint=hub.url))
    assert (
        sorted(path.relative_to(into / "rows").as_posix() for path in into.rglob("*.*") if path.parent != into)
        == (SHARDS[:2])
    )
    assert (into / "rows" / SHARDS[0]).read_bytes() == hub.commits[COMMIT][SHARDS[0]]
    assert (result.revision, result.uri) == (COMMIT, "hf://datasets/acme/rows")
    hub.sent.clear()
    ensure_downloaded(entry(downloaded=str(tmp_path / "data" / "b-train"), endpoint=hub.url))
    assert hub.sent == {}, "the next job downloaded it again"
    ensure_downloaded(entry("test", downloaded=str(tmp_path / "data" / "b-test"), endpoint=hub.url))
    assert (tmp_path / "data" / "b-test" / "rows" / SHARDS[2]).is_file()


@pytest.mark.slow
def test_a_data_set_that_is_not_there_is_named_so(hub: Hub, tmp_path: Path) -> None:
    into = str(tmp_path / "data" / "a-train")
    with pytest.raises(BadInput, match="there is no such data set, or it is private"):
        ensure_downloaded(entry(uri="hf://datasets/acme/none", downloaded=into, endpoint=hub.url))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data/../../x.parquet", "/etc/x.parquet", "a//x.parquet", "a\\x.parquet"])
def test_names_that_the_hub_lists_stay_in_their_directory(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.commits[COMMIT] = {name: b"x"}
    with pytest.raises(BadInput, match="the name"):
        ensure_downloaded(entry(downloaded=str(tmp_path / "data" / "a-train"), endpoint=hub.url))
    assert hub.sent == {}
