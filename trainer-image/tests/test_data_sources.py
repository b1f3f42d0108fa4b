"""Which files a path stands for, which it may not lead to, and what their columns are called."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from data_files import GOOD_ROWS, json_lines, save_folder, table
from rows import chat_row, write_jsonl

from hone.contract.settings import DataFormat
from hone_trainer.data.digest import data_digest
from hone_trainer.data.read import rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import good_samples, survey
from hone_trainer.protocol.errors import BadInput

ROWS = GOOD_ROWS[DataFormat.PROMPT_COMPLETION]
TREE = ("a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl", ".hidden/e.jsonl", ".f.jsonl", "README.md")


def names(path: Path, **options: Any) -> list[str]:
    return [file.name for file in find_source("train", str(path), **options).files]


def refused(path: Path, name: str = "train", **options: Any) -> tuple[str, str]:
    with pytest.raises(BadInput) as error:
        find_source(name, str(path), **options)
    assert error.value.field == f"spec.dataset.{name}"
    return error.value.message, error.value.hint or ""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        write_jsonl(tmp_path / "data" / name, [chat_row(0)])
    return tmp_path / "data"


@pytest.mark.parametrize("path", ["", "*.jsonl", "none.jsonl"])
def test_a_directory_that_may_not_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    # By its mode alone it would not be refused to root, whom tests may run as. Globs leave such directories out.
    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(Path, "glob", lambda *_: [])
    message, hint = refused(tree / path)
    assert message == f"{tree} may not be read by the pod's user"
    assert "chmod a+rx" in hint


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("", ["a.jsonl", "b.jsonl"], id="a directory"),
        pytest.param("sub", ["c.jsonl"], id="a directory below"),
        pytest.param("b.jsonl", ["b.jsonl"], id="a file"),
        pytest.param("*.jsonl", ["a.jsonl", "b.jsonl"], id="any name"),
        pytest.param("[b-z].jsonl", ["b.jsonl"], id="a set"),
        pytest.param("?.jsonl", ["a.jsonl", "b.jsonl"], id="any character"),
        pytest.param("*/*.jsonl", ["sub/c.jsonl"], id="any directory"),
        pytest.param("**/*.jsonl", ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl"], id="all directories"),
        pytest.param("s*/**/d.jsonl", ["sub/deep/d.jsonl"], id="in between"),
        pytest.param("*", ["README.md", "a.jsonl", "b.jsonl"], id="whatever lies there"),
    ],
)
def test_a_path_stands_for_its_files_by_name_without_hidden_ones(tree: Path, path: str, expected: list[str]) -> None:
    assert names(tree / path) == expected


def test_a_name_with_wildcards_that_is_there_is_that_file(tree: Path) -> None:
    write_jsonl(tree / "[ab].jsonl", [chat_row(0)])
    assert names(tree / "[ab].jsonl") == ["[ab].jsonl"]


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        pytest.param("c.jsonl", "does not exist; {} holds README.md, a.jsonl, b.jsonl, sub/", "a glob", id="no file"),
        pytest.param("*.csv", "matches no file; {} holds README.md", "**/ for any directories", id="no match"),
        pytest.param("nowhere/*.csv", "matches no file; {} holds README.md", "Fix the glob", id="no directory"),
        pytest.param("su*", "matches only directories", "Fix the glob", id="only directories"),
        pytest.param("**.jsonl", "is not a valid glob", "**/*.csv", id="no glob"),
    ],
)
def test_a_path_without_files_is_refused_with_what_is_there(tree: Path, path: str, message: str, hint: str) -> None:
    text, remedy = refused(tree / path)
    assert message.format(tree) in text
    assert hint in remedy


def test_a_directory_of_directories_is_refused_with_the_glob(tree: Path) -> None:
    (tree / "sub" / "c.jsonl").unlink()
    (tree / "sub" / "other").mkdir()
    text, remedy = refused(tree / "sub")
    assert text.endswith(f"holds no file; {tree}/sub holds deep/, other/")
    assert "glob" in remedy


def test_a_repository_of_a_hub_stands_for_the_only_directory_in_it(tmp_path: Path) -> None:
    for name in ("README.md", ".gitattributes", "data/train-0.jsonl", "data/test-0.jsonl", ".cache/a.jsonl"):
        write_jsonl(tmp_path / "repository" / name, [chat_row(0)])
    assert names(tmp_path / "repository") == ["train-0.jsonl"]
    write_jsonl(tmp_path / "deep" / "a" / "b" / "c.jsonl", [chat_row(0)])
    text, _ = refused(tmp_path / "deep")
    assert text.endswith("a holds no file; " + f"{tmp_path}/deep/a holds b/")


def test_no_link_to_a_directory_leads_out_of_the_volume(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "elsewhere" / "a.jsonl", [chat_row(0)])
    (tmp_path / "volume" / "rows").mkdir(parents=True)
    (tmp_path / "volume" / "rows" / "data").symlink_to(tmp_path / "elsewhere")
    text, _ = refused(tmp_path / "volume" / "rows", mount=tmp_path / "volume")
    assert "a.jsonl" not in text


def test_a_directory_of_several_kinds_is_refused_and_a_glob_says_which_are_meant(tree: Path) -> None:
    (tree / "rows.csv").write_bytes(table(ROWS))
    write_jsonl(tree / "a.jsonl", [chat_row(i) for i in range(20)])
    (tree / "notes.json").write_text("{}")
    text, remedy = refused(tree)
    assert "several kinds: 2 .jsonl, 1 .json, 1 .csv" in text
    assert "data/*.jsonl" in remedy, "the kind that has most of the bytes"
    (tree / "notes.json").unlink()
    # Whoever names them all means them all: each is read as what it is.
    write_jsonl(tree / "a.jsonl", ROWS)
    (tree / "b.jsonl").write_bytes(b"")
    source = find_source("train", str(tree / "*.[jc]s*"))
    assert [row for _, row in rows(source)] == ROWS * 2


def test_a_mounted_config_map_is_read_and_its_links_stay_within(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "..2026" / "b.jsonl", [chat_row(1)])
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "b.jsonl").symlink_to("..data/b.jsonl")
    assert names(tmp_path / "b.jsonl", mount=tmp_path) == ["b.jsonl"]
    assert names(tmp_path, mount=tmp_path) == ["b.jsonl"]


@pytest.mark.parametrize("path", ["link.jsonl", "*.jsonl", "", "dir/x.jsonl", "dir/*", "../outside/x.jsonl"])
def test_no_path_and_no_link_leads_out_of_the_volume(tmp_path: Path, path: str) -> None:
    outside = write_jsonl(tmp_path / "outside" / "x.jsonl", [chat_row(0)])
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "link.jsonl").symlink_to(outside)
    (mount / "dir").symlink_to(outside.parent)
    text, remedy = refused(mount / path, mount=mount)
    assert "leads out of its volume, to " in text
    assert "not a link" in remedy
    assert names(mount / path)


def test_a_saved_data_set_with_splits_gives_each_source_its_own(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    splits = {name: Dataset.from_list([{"prompt": name, "completion": "c"}]) for name in ("train", "test", "extra")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    for name in ("train", "test"):
        (row,) = [row for _, row in rows(find_source(name, str(tmp_path / "saved")))]
        assert row["prompt"] == name
    (row,) = [row for _, row in rows(find_source("train", str(tmp_path / "saved" / "extra")))]
    assert row["prompt"] == "extra"
    text, remedy = refused(tmp_path / "saved", name="validation")
    assert "has no split validation; it has train, test, extra" in text
    assert "such as saved/train" in remedy


def test_a_saved_data_set_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "saved", ROWS)
    next(folder.glob("*.arrow")).unlink()
    assert "lacks its file data-0000" in refused(folder)[0]
    (folder / "state.json").write_text("{}")
    assert "saved/state.json lists no _data_files" in refused(folder)[0]
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../secret"}]}))
    assert "lacks its file secret" in refused(folder)[0]


def test_the_digest_is_of_kinds_and_bytes_and_of_no_name(tmp_path: Path) -> None:
    digests = {}
    for name, content in {
        "a.jsonl": json_lines(ROWS),
        "b.jsonl": json_lines(ROWS),
        "c.jsonl": json_lines(ROWS[:1]),
        "d.jsonl": b"prompt,completion",
        "d.csv": b"prompt,completion",
    }.items():
        (tmp_path / name).write_bytes(content)
        digests[name] = data_digest([find_source("train", str(tmp_path / name))])
    assert digests["a.jsonl"] == digests["b.jsonl"]
    assert len(set(digests.values())) == 4


def surveyed(path: Path, columns: dict[str, str]) -> list[Sample]:
    source = find_source("train", str(path), columns=columns)
    result = survey([source], DataFormat.AUTO, 0, 0)
    return [sample for _, sample in good_samples([source], result.format)]


def test_columns_are_renamed_before_the_format_is_looked_for(tmp_path: Path) -> None:
    qa = [{"question": "q", "answer": "a", "id": 1, "prompt": "no"}, {"prompt": "p", "answer": "b"}]
    path = write_jsonl(tmp_path / "rows.jsonl", qa)
    samples = surveyed(path, {"prompt": "question", "completion": "answer"})
    assert samples == [Sample(prompt="q", completion="a"), Sample(prompt="p", completion="b")]


def test_names_may_be_exchanged(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "q"}])
    assert surveyed(path, {"prompt": "completion", "completion": "prompt"}) == [Sample(prompt="q", completion="a")]


def test_columns_make_tables_of_others_readable(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(table([{"review": "It works.", "stars": 5}]))
    assert surveyed(tmp_path / "rows.csv", {"text": "review", "label": "stars"}) == [
        Sample(prompt="It works.", label="5")
    ]


@pytest.mark.parametrize(
    ("columns", "message", "hint"),
    [
        pytest.param(
            {"prompt": "question", "completion": "answr"},
            "`completion` is mapped to `answr`, but no row has that column; the rows have `question`, `answer`",
            "one of these",
            id="no such column",
        ),
        pytest.param(
            {"promt": "question"}, "`promt` is not a column that Hone reads", "one of ", id="no name of Hone's"
        ),
        pytest.param({"question": "prompt"}, "`question` is not a column", "Write `name: yours`", id="exchanged"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, columns: dict[str, str], message: str, hint: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"question": "q"}, "broken", {"question": "q", "answer": "a"}])
    with pytest.raises(BadInput) as error:
        surveyed(path, columns)
    assert error.value.field == "spec.dataset.columns"
    assert message in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(
            {"train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"},
            id="the hub's",
        ),
        pytest.param({"train.jsonl", "dev.jsonl", "test.jsonl"}, id="one file each"),
        pytest.param({"my_training_set.csv", "my_val_set.csv", "my_eval_set.csv"}, id="other words"),
    ],
)
def test_of_a_directory_whose_names_tell_splits_each_source_reads_its_own(tmp_path: Path, names: set[str]) -> None:
    for name in (*names, "README.md", "dataset_info.json", ".gitattributes"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n')
    read = {name: {file.name for file in find_source(name, str(tmp_path)).files} for name in ("train", "test")}
    assert read["train"] == {name for name in names if "train" in name}
    assert read["test"] == {name for name in names if "test" in name or "eval" in name}
    unread = find_source("train", str(tmp_path)).unread
    assert {*unread} == {*names, "README.md", "dataset_info.json"} - read["train"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        pytest.param(["train.jsonl", "more.jsonl"], "more.jsonl names none", id="one that tells nothing"),
        pytest.param(["dev.jsonl", "test.jsonl"], "none of them names train", id="none of its own"),
    ],
)
def test_names_that_leave_open_what_is_meant_are_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(BadInput) as error:
        find_source("train", str(tmp_path))
    assert problem in error.value.message
    assert f"such as {tmp_path.name}/" in (error.value.hint or "")


def test_a_directory_of_one_file_or_of_a_split_of_its_own_may_be_named_as_it_likes(tmp_path: Path) -> None:
    for folder, names in (("one", ["test.jsonl"]), ("held-out", ["train-0.jsonl", "train-1.jsonl"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("{}\n")
    assert len(find_source("train", str(tmp_path / "one")).files) == 1
    assert len(find_source("test", str(tmp_path / "held-out")).files) == 2
