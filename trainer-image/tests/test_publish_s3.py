"""Publish to S3: a damaged copy is made whole again, and what others have written there is not overwritten."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_publish import (
    CARD,
    KEYS,
    WEIGHTS,
    Killed,
    Publish,
    assert_refused,
    assert_whole,
    bucket,
    objects,
    output,
    run,
    store,
    to_store,
    without_waiting,
)

from hone.contract.stores import S3Store
from hone_trainer.protocol import manifest
from hone_trainer.publishing import s3

__all__ = ["bucket", "output", "run", "store", "without_waiting"]

pytestmark = pytest.mark.slow


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "one is gone": lambda client: client.delete_object(Bucket="tuned", Key="bots/a/model.safetensors"),
    "one is replaced": lambda client: client.put_object(Bucket="tuned", Key="bots/a/config.json", Body=b"other"),
    "one has other content": lambda client: client.put_object(
        Bucket="tuned",
        Key="bots/a/README.md",
        Body=b"x" * len(CARD),
        Metadata=client.head_object(Bucket="tuned", Key="bots/a/README.md")["Metadata"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_made_whole_also_by_an_attempt_after_a_killed_one(
    bucket: Any, store: str, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    to_store(run, store)
    DAMAGES[damage](bucket)
    with monkeypatch.context() as patch:
        patch.setattr(s3._Store, "put", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            to_store(run, store)
    assert "bots/a/SHA256SUMS" not in objects(bucket)
    code, result = to_store(run, store)
    assert code == 0, result.verdict
    assert_whole({key.removeprefix("bots/a/"): content for key, content in objects(bucket).items()}, output, result)


def test_a_copy_with_a_file_that_did_not_arrive_as_sent_has_no_sums(
    bucket: Any, store: str, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3._Store.put

    def put(self: Any, file: Any, **more: str) -> None:
        real(self, file, **more)
        if file.path == "tokenizer.json":
            bucket.put_object(Bucket="tuned", Key="bots/a/tokenizer.json", Body=b"other")

    monkeypatch.setattr(s3._Store, "put", put)
    assert_refused(to_store(run, store), "DigestMismatch", 70)
    assert "bots/a/SHA256SUMS" not in objects(bucket)


@pytest.mark.parametrize("begins_with", [WEIGHTS[: 5 << 20], b"x" * (5 << 20)], ids=["the same part", "another part"])
def test_an_upload_that_another_job_began_does_not_become_ours(
    bucket: Any, store: str, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch, begins_with: bytes
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    content = (WEIGHTS * 41)[: (10 << 20) + 1]
    key = {"Bucket": "tuned", "Key": "bots/a/model.safetensors"}
    foreign = bucket.create_multipart_upload(**key, Metadata={"sha256": "0", "hone-job": "2"})["UploadId"]
    part = content[: 5 << 20] if begins_with == WEIGHTS[: 5 << 20] else begins_with
    bucket.upload_part(**key, UploadId=foreign, PartNumber=1, Body=part)
    bucket.create_multipart_upload(**key)
    (output / "artifact" / "model.safetensors").write_bytes(content)
    digest = manifest.digest_of(manifest.list_files(output / "artifact"))
    code, result = to_store(run, store, digest=digest)
    assert code == 0, result.verdict
    assert objects(bucket)["bots/a/model.safetensors"] == content
    assert bucket.head_object(**key)["Metadata"] == {"sha256": hashlib.sha256(content).hexdigest(), "hone-job": "1"}
    assert not bucket.list_multipart_uploads(Bucket="tuned").get("Uploads")


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_file_that_the_job_did_not_write_is_not_overwritten(bucket: Any, store: str, run: Publish, name: str) -> None:
    bucket.put_object(Bucket="tuned", Key=f"bots/a/{name}", Body=b"theirs")
    code, result = to_store(run, store)
    assert_refused((code, result), "DestinationTaken")
    assert name in result.verdict.message
    assert objects(bucket) == {f"bots/a/{name}": b"theirs"}


def answer_sums(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> None:
    """Let `answer` answer the conditional request that writes SHA256SUMS."""
    real = s3._client

    def client(*arguments: Any) -> Any:
        created = real(*arguments)
        put = created.put_object
        created.put_object = lambda **fields: answer(put, fields) if fields.get("IfNoneMatch") == "*" else put(**fields)
        return created

    monkeypatch.setattr(s3, "_client", client)


def test_sums_of_another_job_that_come_meanwhile_are_not_overwritten(
    bucket: Any, store: str, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(put: Any, fields: Any) -> Any:
        bucket.put_object(Bucket="tuned", Key="bots/a/SHA256SUMS", Body=b"theirs")
        return put(**fields)

    answer_sums(monkeypatch, answer)
    assert_refused(to_store(run, store), "DestinationTaken")
    assert objects(bucket)["bots/a/SHA256SUMS"] == b"theirs"


def test_sums_are_written_once_though_the_request_is_sent_twice_and_where_no_condition_is_known(
    bucket: Any, store: str, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    with monkeypatch.context() as patch:
        answer_sums(patch, lambda put, fields: (put(**fields), fields["Body"].seek(0), put(**fields)))
        assert to_store(run, store)[0] == 0
    bucket.delete_object(Bucket="tuned", Key="bots/a/SHA256SUMS")

    def unknown(put: Any, fields: Any) -> Any:
        details = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(details, "PutObject")

    answer_sums(monkeypatch, unknown)
    assert to_store(run, store)[0] == 0
    assert "bots/a/SHA256SUMS" in objects(bucket)


def test_a_store_with_buckets_in_host_names_is_the_administrators_too(
    bucket: Any, store: str, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    real, resolved = socket.getaddrinfo, []

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        resolved.append(host)
        return real("127.0.0.1", *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    place = S3Store(endpoint=store.replace("127.0.0.1", "localhost"), path_style=False)
    code, result = run("s3://tuned/bots/a", KEYS, s3=place)
    assert code == 0, result.verdict
    assert set(resolved) == {"tuned.localhost"}
    assert "bots/a/SHA256SUMS" in objects(bucket)
    assert_refused(run("s3://tuned/bots/a", KEYS, s3=place, is_trusted=None), "AddressRefused")
