"""Models and data of S3-compatible stores: downloaded once, whole, as listed, and from allowed addresses only."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row
from store_server import BUCKET, Store, serving

from hone.contract.progress import Progress
from hone.contract.results import DownloadedModel
from hone.contract.runconfig import Download, RunConfig
from hone.contract.stores import S3Store
from hone_trainer.downloads import download, remote
from hone_trainer.downloads.download import ensure_downloaded
from hone_trainer.downloads.remote import Unreachable
from hone_trainer.downloads.s3 import S3
from hone_trainer.models.facts import model_digest
from hone_trainer.prepare import prepare
from hone_trainer.protocol.addresses import PrivateAddress
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.rows_done import RowsDone

pytestmark = pytest.mark.slow

ROWS = b'{"prompt": "a", "completion": "b"}\n' * 4000
OBJECTS = {
    "data/a.jsonl": ROWS,
    "data/b.jsonl": ROWS[:36],
    "data/deep/c.jsonl": ROWS[:72],
    "data/README.md": b"words",
    "data/.hidden.jsonl": b"{}",
    "model/config.json": b"{}",
    "model/model.safetensors": bytes(range(256)) * 400,
    "model/pytorch_model.bin": b"pickle",
    "model/deep/tokenizer.json": b"{}",
}
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "planted-secret", "AWS_SESSION_TOKEN": "planted-token"}
VARIABLES = {key: f"{key}_TRAIN" for key in KEYS}


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """A store for the tests of this file."""
    with serving() as store:
        yield store


@pytest.fixture
def store(server: Store) -> Store:
    """The same, as it is at first."""
    server.__init__(url=server.url)  # type: ignore[misc]
    server.put(OBJECTS)
    return server


def fetch(store: Store, workspace: Path, key: str, run: str = "a", **fields: Any) -> DownloadedModel:
    """Download it as a run does."""
    arguments: dict[str, Any] = {
        "field": "spec.dataset.train",
        "uri": f"s3://{BUCKET}/{key}",
        "downloaded": str(workspace / "data" / f"{run}-train"),
        "s3": S3Store(endpoint=store.url),
        "is_trusted": True,
        "is_data": True,
        "credentials": VARIABLES,
        **fields,
    }
    os.environ.update({variable: KEYS[key] for key, variable in VARIABLES.items()} if arguments["credentials"] else {})
    return ensure_downloaded(Download.model_validate(arguments, by_name=True))


def files(workspace: Path, run: str = "a") -> dict[str, bytes]:
    """What a run reads."""
    rows = workspace / "data" / f"{run}-train" / "rows"
    return {path.relative_to(rows).as_posix(): path.read_bytes() for path in rows.rglob("*") if path.is_file()}


def test_a_download_reports_bytes_and_rate(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports, seen = RowsDone(), threading.Event()

    class Seen(RowsDone):
        def write(self, stage: str, rows: int, total: int | None, rate: float) -> None:
            reports.write(stage, rows, total, rate)
            if rows == len(ROWS):
                seen.set()

        def end(self) -> None:
            ended.append(reports.progress())

    ended: list[Progress] = []
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.01)
    monkeypatch.setattr(download, "rows_done", Seen())
    received = S3.fetch
    monkeypatch.setattr(S3, "fetch", lambda *arguments: (received(*arguments), seen.wait(60)))
    fetch(store, tmp_path, "data/a.jsonl")
    [last] = ended
    assert (last.stage, last.downloaded_bytes, last.total_bytes) == ("Downloading", len(ROWS), len(ROWS))
    assert last.bytes_per_second
    assert last.rows is None


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("data/a.jsonl", {"a.jsonl": "data/a.jsonl"}),
        ("data/", {"a.jsonl": "data/a.jsonl", "b.jsonl": "data/b.jsonl", "README.md": "data/README.md"}),
        ("data", {"a.jsonl": "data/a.jsonl", "b.jsonl": "data/b.jsonl", "README.md": "data/README.md"}),
        ("data/*.jsonl", {"a.jsonl": "data/a.jsonl", "b.jsonl": "data/b.jsonl"}),
        ("data/[b-z].jsonl", {"b.jsonl": "data/b.jsonl"}),
        ("*/deep/?.jsonl", {"data/deep/c.jsonl": "data/deep/c.jsonl"}),
        (
            "data/**/*.jsonl",
            {"a.jsonl": "data/a.jsonl", "b.jsonl": "data/b.jsonl", "deep/c.jsonl": "data/deep/c.jsonl"},
        ),
    ],
)
def test_a_key_a_prefix_and_a_glob_stand_for_objects(
    store: Store, tmp_path: Path, key: str, expected: dict[str, str]
) -> None:
    fetch(store, tmp_path, key)
    assert files(tmp_path) == {path: OBJECTS[name] for path, name in expected.items()}


def test_of_a_prefix_with_a_model_its_files_are_downloaded_and_nothing_else(store: Store, tmp_path: Path) -> None:
    into = tmp_path / "models" / "a-model"
    fetch(store, tmp_path, "model", field="spec.model", downloaded=str(into), is_data=None)
    assert {path.name for path in into.iterdir()} == {"config.json", "model.safetensors", "MANIFEST.json"}
    assert (into / "model.safetensors").read_bytes() == OBJECTS["model/model.safetensors"]


def test_the_next_job_downloads_nothing_and_sees_what_changed(store: Store, tmp_path: Path) -> None:
    first = fetch(store, tmp_path, "data/*.jsonl")
    store.sent.clear()
    assert fetch(store, tmp_path, "data/*.jsonl", "b").revision == first.revision
    assert store.sent == {}
    store.put({**OBJECTS, "data/b.jsonl": b"{}"})
    assert fetch(store, tmp_path, "data/*.jsonl").revision == first.revision, "a run's data changed"
    assert fetch(store, tmp_path, "data/*.jsonl", "c").revision != first.revision
    assert files(tmp_path, "c")["b.jsonl"] == b"{}"


def test_a_download_that_was_cut_resumes(store: Store, tmp_path: Path) -> None:
    store.cut_after = len(ROWS) // 2
    fetch(store, tmp_path, "data/a.jsonl")
    assert files(tmp_path) == {"a.jsonl": ROWS}
    assert store.sent["data/a.jsonl"] == len(ROWS), "bytes were sent twice"


def test_a_store_that_sends_all_of_an_object_again_adds_nothing_to_what_is_there(store: Store, tmp_path: Path) -> None:
    store.cut_after, store.whole = 1001, True
    fetch(store, tmp_path, "data/a.jsonl")
    assert files(tmp_path) == {"a.jsonl": ROWS}


def test_objects_of_the_same_content_do_not_get_into_each_other(store: Store, tmp_path: Path) -> None:
    objects = {f"same/part-{number}.jsonl": ROWS for number in range(8)}
    store.put(objects)
    fetch(store, tmp_path, "same")
    assert files(tmp_path) == {name.partition("/")[2]: content for name, content in objects.items()}


def test_a_line_break_at_the_end_of_a_secret_does_not_count(store: Store, tmp_path: Path) -> None:
    variables = {key: f"{value}\n" for key, value in KEYS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KEYS, "AWS_SESSION_TOKEN", variables["AWS_SESSION_TOKEN"])
        fetch(store, tmp_path, "data/b.jsonl")
    assert files(tmp_path) == {"b.jsonl": OBJECTS["data/b.jsonl"]}


def test_a_bucket_in_the_hosts_name_is_as_trusted_as_the_store(store: Store, tmp_path: Path) -> None:
    from hone_trainer.downloads.s3 import s3

    port = store.url.rpartition(":")[2]
    named = S3Store(endpoint=f"http://store.test:{port}", is_path_style=False)
    entry = Download(
        field="f", uri=f"s3://{BUCKET}/data", downloaded=str(tmp_path / "x"), s3=named, is_trusted=True, is_data=True
    )
    private = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: private)
        with s3(entry, {}):
            assert socket.getaddrinfo(f"{BUCKET}.store.test", 80) == private
            with pytest.raises(PrivateAddress):
                socket.getaddrinfo("other.store.test", 80)


def test_an_object_that_changes_meanwhile_is_never_half_of_both(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone_trainer.downloads import s3

    receive, replaced = s3.S3._receive, []

    def cut(self: Any, file: Any, part: Path, done: int, size: int) -> None:
        if done and not replaced:
            store.put({"data/a.jsonl": b"x" * len(ROWS)})
            replaced.append(True)
        receive(self, file, part, done, size)

    monkeypatch.setattr(s3.S3, "_receive", cut)
    store.cut_after = len(ROWS) // 2
    with pytest.raises(Unreachable, match="was replaced while it was downloaded"):
        fetch(store, tmp_path, "data/a.jsonl")
    fetch(store, tmp_path, "data/a.jsonl")
    assert files(tmp_path) == {"a.jsonl": b"x" * len(ROWS)}


def test_no_more_is_read_than_was_listed(store: Store, tmp_path: Path) -> None:
    store.listed = ["data/a.jsonl"]
    with pytest.raises(Unreachable):
        fetch(store, tmp_path, "data/*.jsonl")
    partial = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in partial) <= 1


@pytest.mark.parametrize(
    ("status", "code", "field", "words"),
    [
        (403, "InvalidAccessKeyId", "credentialsSecretRef", "does not know the access key"),
        (403, "SignatureDoesNotMatch", "credentialsSecretRef", "does not belong to the access key"),
        (400, "ExpiredToken", "credentialsSecretRef", "have expired"),
        (400, "InvalidToken", "credentialsSecretRef", "token is not valid"),
        (403, "AccessDenied", "credentialsSecretRef", "may not read it"),
        (404, "NoSuchBucket", "uri", "has no bucket"),
        (404, "NoSuchKey", "uri", "does not exist"),
        (400, "IllegalLocationConstraintException", "s3.region", "is not in region us-east-1"),
        (400, "InvalidRequest", "uri", "refused the request, InvalidRequest"),
    ],
)
def test_what_the_store_refuses_names_the_field_to_change(
    store: Store, tmp_path: Path, status: int, code: str, field: str, words: str
) -> None:
    store.error = (status, code)
    with pytest.raises(BadInput, match=words) as caught:
        fetch(store, tmp_path, "data/a.jsonl")
    assert caught.value.field == f"spec.dataset.train.{field}"
    shown = f"{caught.value} {caught.value.hint}"
    assert not any(word in shown for word in (*KEYS.values(), "secret words"))


def test_without_credentials_a_refusal_asks_for_them(store: Store, tmp_path: Path) -> None:
    store.error = (403, "AccessDenied")
    with pytest.raises(BadInput, match="without credentials") as caught:
        fetch(store, tmp_path, "data/a.jsonl", credentials=None)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value.hint)


def test_a_server_error_may_pass(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone_trainer.downloads.s3._ATTEMPTS", 1)
    store.error = (503, "SlowDown")
    with pytest.raises(Unreachable, match="answered with 503"):
        fetch(store, tmp_path, "data/a.jsonl")


@pytest.mark.parametrize("key", ["data/none.jsonl", "none/", "data/*.csv", "data/deep/deeper/**/*"])
def test_what_matches_nothing_is_bad_input(store: Store, tmp_path: Path, key: str) -> None:
    with pytest.raises(BadInput, match="matches no object"):
        fetch(store, tmp_path, key)


def test_credentials_are_used_and_leave_the_environment(store: Store, tmp_path: Path) -> None:
    fetch(store, tmp_path, "data/a.jsonl")
    assert all("Credential=AKID/" in each for each in store.signed)
    assert not set(VARIABLES.values()) & set(os.environ)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(value.encode() in written for value in KEYS.values())


def test_variables_of_the_job_change_neither_store_nor_credentials(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "other")
    fetch(store, tmp_path, "data/a.jsonl")
    assert files(tmp_path) == {"a.jsonl": ROWS}
    assert os.environ["AWS_PROFILE"] == "other"


def test_a_store_without_https_must_be_the_administrators(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not HTTPS") as caught:
        fetch(store, tmp_path, "data/a.jsonl", is_trusted=None)
    assert caught.value.field == "spec.dataset.train.s3.endpoint"
    assert store.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "10.96.0.1"])
def test_a_store_with_a_private_address_must_be_the_administrators(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadInput, match="no public address") as caught:
        fetch(Store(url=f"https://{host}:6443"), tmp_path, "data/a.jsonl", is_trusted=None)
    assert caught.value.field == "spec.dataset.train.s3.endpoint"
    assert "s3.endpoints" in str(caught.value.hint)


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data", "https://10.96.0.1/api", "file:///etc"])
def test_a_store_that_redirects_is_not_followed(store: Store, tmp_path: Path, target: str) -> None:
    store.redirect = target
    with pytest.raises(BadInput, match="a redirect, which is not followed"):
        fetch(store, tmp_path, "data/a.jsonl")
    assert not list(tmp_path.rglob("rows"))


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["data/../../x.jsonl"], "leads out of its directory"),
        (["data//etc/x.jsonl"], "empty part"),
        (["data/./x.jsonl"], "leads out of its directory"),
        (["data/a\tb.jsonl"], "control characters"),
        (["data/a\\b.jsonl"], "a backslash"),
        ([f"data/{'a' * 300}.jsonl"], "is too long"),
        (["data/a.jsonl", "data/a.jsonl/b.jsonl"], "both a file and a directory"),
        (["data/a.jsonl", "data/b.jsonl", "data/c.jsonl", "data/d.jsonl"], "more than 3 files"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_names_that_a_store_lists_stay_in_their_directory(
    store: Store, tmp_path: Path, listed: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_FILES", 3)
    store.listed = listed
    with pytest.raises(BadInput, match=words):
        fetch(store, tmp_path, "data/**")
    assert store.sent == {}
    assert not (tmp_path / "data" / "a-train").exists()


def test_a_job_is_prepared_from_rows_and_a_model_of_a_store(
    store: Store, make_config: Any, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the operator renders it: rows by a glob, the model by a prefix, each with variables of its own."""
    rows = [json.dumps(chat_row(i)) for i in range(300)]
    halves = {"rows/0.jsonl": "\n".join(rows[:200]), "rows/1.jsonl": "\n".join(rows[200:])}
    model = {f"base/{path.name}": path.read_bytes() for path in tiny_model.iterdir()}
    store.put({**{key: text.encode() for key, text in halves.items()}, **model})
    entries = [
        ("spec.dataset.train", "rows/*", tmp_path / "workspace" / "data" / "x-train"),
        ("spec.model", "base", tmp_path / "workspace" / "models" / "x-model"),
    ]
    config = make_config(merges=[])
    for field, key, into in entries:
        variables = {name: f"{name}_{into.name[2:].upper()}" for name in KEYS}
        for name, variable in variables.items():
            monkeypatch.setenv(variable, KEYS[name])
        entry = Download(
            field=field,
            uri=f"s3://{BUCKET}/{key}",
            downloaded=str(into),
            is_data=field != "spec.model",
            s3=S3Store(endpoint=store.url),
            is_trusted=True,
            credentials=variables,
        )
        config["merges"].append(entry.to_dict())
    config["data"] = {"train": f"{entries[0][2]}/rows/**/*", "mounts": "/mnt/data", "minSamples": 10}
    config["paths"]["model"] = str(entries[1][2])
    result = prepare(RunConfig.from_dict(config))
    counts = result.dataset
    assert counts.train_rows + counts.validation_rows + counts.test_rows == 300
    assert [each.field for each in result.downloads] == ["spec.dataset.train", "spec.model"]
    assert result.model_digest == model_digest(tiny_model)
