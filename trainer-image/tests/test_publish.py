"""Publish: a copy is whole or absent, is resumed, is compared with what was sent, and refusals are told apart."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from destinations import Hub, Registry, serving

from hone.contract.report import Report
from hone.contract.results import StepResult
from hone.contract.runconfig import Publication, RunConfig
from hone.contract.stores import S3Store
from hone_trainer import publish
from hone_trainer.protocol import manifest
from hone_trainer.publishing import bundle as bundles
from hone_trainer.publishing import client, oci, s3

WEIGHTS = bytes(range(256)) * 1024
FILES = {
    "README.md": b"---\nlibrary_name: transformers\n---\nwithout scores",
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b"{}",
    "model.safetensors": WEIGHTS,
}
CARD = b"---\nlibrary_name: transformers\n---\nwith scores"
SECRET_KEY = "a-secret-key-of-the-store"

pytestmark = pytest.mark.slow

Publish = Callable[..., tuple[int, StepResult]]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What finish leaves on the claim."""
    directory = tmp_path / "output" / "artifact"
    directory.mkdir(parents=True)
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    (directory.parent / "README.md").write_bytes(CARD)
    files = manifest.list_files(directory)
    report = {
        "job": {"namespace": "team-a", "name": "bot", "uid": "1"},
        "modelName": "base",
        "finalStep": 4,
        "plan": _plan(),
        "dataset": {
            "digest": "sha256:" + "d" * 64,
            "format": "Chat",
            "trainOn": "Assistant",
            "trainRows": 9,
            "validationRows": 1,
            "testRows": 1,
        },
        "artifact": {"digest": manifest.digest_of(files), "sizeBytes": 1, "kind": "Model", "baseDigest": None},
        "files": [file.to_dict() for file in files],
        "maxNewTokens": 1,
        "samples": [{"prompt": "a row of the data", "reference": "x", "base": "y", "tuned": "z"}],
    }
    (directory.parent / "report.json").write_text(Report.from_dict(report).to_json())
    return directory.parent


def _plan() -> dict[str, Any]:
    from hone.contract.plan import Plan

    schema = Plan.model_json_schema(by_alias=True)
    values = {"string": "x", "integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {}}

    def value(node: dict[str, Any]) -> Any:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
            if "enum" in node:
                return node["enum"][0]
            return {name: value(node["properties"][name]) for name in node.get("required", [])}
        return values[node["type"]]

    return {name: value(schema["properties"][name]) for name in schema["required"]}


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries wait before they try again."""
    import time

    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def run(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Runs the step; gives exit code and termination message."""
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "team-a", "name": "bot", "uid": "1"},
            "modelName": "base",
            "data": {"train": "/mnt/data"},
            "paths": {"output": str(output)},
        }
    )
    (tmp_path / "run.json").write_text(config.to_json())
    digest = manifest.digest_of(manifest.list_files(output / "artifact"))
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "term"))

    def step(uri: str, secrets: dict[str, str] | None = None, **fields: Any) -> tuple[int, StepResult]:
        for name, value in (secrets or {}).items():
            monkeypatch.setenv(name, value)
        # The servers of these tests are on this machine.
        copy = Publication(**{"uri": uri, "digest": digest, "is_trusted": True, **fields})
        attempt = {"number": 1, "publish": copy.to_dict()}
        monkeypatch.setenv("HONE_ATTEMPT", json.dumps(attempt))
        code = publish.main()
        return code, StepResult.model_validate_json((tmp_path / "term").read_text())

    return step


def expected(output: Path) -> dict[str, bytes]:
    """The files of a copy, but for what Hone adds."""
    return {**FILES, "README.md": CARD}


def assert_whole(files: dict[str, bytes], output: Path, result: StepResult) -> None:
    """All files are there, SHA256SUMS has the digest of each, and its own is reported."""
    assert {name: files[name] for name in FILES} == expected(output)
    assert set(files) == {*FILES, "SHA256SUMS", "provenance.json"}
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in sorted(set(files) - {"SHA256SUMS"})]
    assert files["SHA256SUMS"].decode().splitlines() == lines
    assert result.published is not None
    assert result.published.digest == f"sha256:{hashlib.sha256(files['SHA256SUMS']).hexdigest()}"
    assert result.published.size_bytes == sum(len(content) for content in files.values())
    statement = json.loads(files["provenance.json"])
    names = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    assert names == {name: hashlib.sha256(content).hexdigest() for name, content in expected(output).items()}


def assert_refused(answer: tuple[int, StepResult], reason: str, code: int = 64) -> None:
    """It ended with this reason, in words that name the field or the place, and repeats no secret."""
    actual, result = answer
    assert result.verdict is not None
    assert (actual, result.verdict.reason) == (code, reason), result.verdict.message
    assert "spec.output" in result.verdict.message or "://" in result.verdict.message
    assert SECRET_KEY not in result.to_json()


# ---- S3


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3 store; gives its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


KEYS = {"AWS_ACCESS_KEY_ID": "an-access-key", "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@pytest.fixture
def bucket(store: str, run: Publish) -> Iterator[Any]:
    """A bucket named tuned."""
    client = s3._client(Publication(uri="s3://tuned/a", digest="", s3=S3Store(endpoint=store)), KEYS)
    client.create_bucket(Bucket="tuned")
    yield client
    for each in client.list_multipart_uploads(Bucket="tuned").get("Uploads", []):
        client.abort_multipart_upload(Bucket="tuned", Key=each["Key"], UploadId=each["UploadId"])
    for key in objects(client):
        client.delete_object(Bucket="tuned", Key=key)
    client.delete_bucket(Bucket="tuned")


def objects(client: Any) -> dict[str, bytes]:
    """All objects of the bucket."""
    listed = client.list_objects_v2(Bucket="tuned").get("Contents", [])
    return {each["Key"]: client.get_object(Bucket="tuned", Key=each["Key"])["Body"].read() for each in listed}


def to_store(run: Publish, store: str, **fields: Any) -> tuple[int, StepResult]:
    """Publish to the store."""
    return run(fields.pop("uri", "s3://tuned/bots/a"), KEYS, s3=S3Store(endpoint=store), **fields)


def test_a_store_has_all_files_below_the_prefix(bucket: Any, store: str, run: Publish, output: Path) -> None:
    code, result = to_store(run, store)
    assert code == 0, result.verdict
    files = {key.removeprefix("bots/a/"): content for key, content in objects(bucket).items()}
    assert_whole(files, output, result)
    assert b"a row of the data" not in b"".join(files.values())


class Killed(BaseException):
    """The process ends here."""


def record_puts(monkeypatch: pytest.MonkeyPatch, fail_at: str | None = None) -> list[str]:
    """The keys that are written from now on; at one of them the process is killed."""
    real, written = s3._client, []

    def client(*arguments: Any) -> Any:
        created = real(*arguments)
        put, part = created.put_object, created.upload_part

        def record(call: Callable[..., Any], name: Callable[[dict[str, Any]], str]) -> Callable[..., Any]:
            def recorded(**fields: Any) -> Any:
                if fail_at is not None and name(fields).endswith(fail_at):
                    raise Killed
                written.append(name(fields).rpartition("/")[2])
                return call(**fields)

            return recorded

        created.put_object = record(put, lambda fields: str(fields["Key"]))
        created.upload_part = record(part, lambda fields: f"{fields['Key']}#{fields['PartNumber']}")
        return created

    monkeypatch.setattr(s3, "_client", client)
    return written


def test_the_sums_come_last_and_a_killed_attempt_leaves_none(
    bucket: Any, store: str, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        written = record_puts(patch, fail_at="tokenizer.json")
        with pytest.raises(Killed):
            to_store(run, store)
    assert "bots/a/SHA256SUMS" not in objects(bucket)
    assert written
    again = record_puts(monkeypatch)
    code, _ = to_store(run, store)
    assert code == 0
    assert not set(written) & set(again), "sent twice"
    assert again[-1] == "SHA256SUMS"
    assert len(written) + len(again) == len(FILES) + 2


def test_parts_of_a_large_file_are_not_sent_again(
    bucket: Any, store: str, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    large = (output / "artifact" / "model.safetensors", bytes(range(251)) * 60_000)
    large[0].write_bytes(large[1])
    digest = manifest.digest_of(manifest.list_files(output / "artifact"))
    copy = Publication(uri="s3://tuned/large", digest=digest, s3=S3Store(endpoint=store))
    config = RunConfig.model_validate_json((output.parent / "run.json").read_text())
    files = bundles.bundle(config, copy)
    with monkeypatch.context() as patch:
        first = record_puts(patch, fail_at="model.safetensors#3")
        with pytest.raises(Killed):
            s3.publish(files, copy, KEYS)
    second = record_puts(monkeypatch)
    s3.publish(files, copy, KEYS)
    parts = [each for each in (*first, *second) if "#" in each]
    assert parts == ["model.safetensors#1", "model.safetensors#2", "model.safetensors#3"]
    assert objects(bucket)["large/model.safetensors"] == large[1]


def test_another_jobs_model_is_not_overwritten(
    bucket: Any, store: str, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_store(run, store)
    before = objects(bucket)
    bucket.copy_object(
        Bucket="tuned",
        Key="bots/a/SHA256SUMS",
        CopySource="tuned/bots/a/SHA256SUMS",
        MetadataDirective="REPLACE",
        Metadata={"hone-job": "2", "sha256": "0"},
    )
    assert_refused(to_store(run, store), "DestinationTaken")
    assert objects(bucket) == before


def test_a_copy_of_the_same_job_gets_its_new_scores(bucket: Any, store: str, run: Publish, output: Path) -> None:
    to_store(run, store)
    (output / "README.md").write_bytes(b"new scores")
    code, result = to_store(run, store)
    assert code == 0
    assert objects(bucket)["bots/a/README.md"] == b"new scores"
    sums = objects(bucket)["bots/a/SHA256SUMS"]
    assert result.published.digest == f"sha256:{hashlib.sha256(sums).hexdigest()}"


def test_a_bucket_that_does_not_exist_is_told(bucket: Any, store: str, run: Publish) -> None:
    assert_refused(to_store(run, store, uri="s3://absent/a"), "NotFound")


@pytest.mark.parametrize(
    ("error", "status", "reason", "code"),
    [
        ("AccessDenied", 403, "AccessDenied", 64),
        ("403", 403, "AccessDenied", 64),
        ("InvalidAccessKeyId", 403, "CredentialsRefused", 64),
        ("ExpiredToken", 400, "CredentialsExpired", 64),
        ("QuotaExceeded", 403, "DestinationFull", 70),
        ("SlowDown", 503, "Unreachable", 70),
        ("BadDigest", 400, "DigestMismatch", 70),
    ],
)
def test_what_a_store_answers_is_told_apart(
    bucket: Any,
    store: str,
    run: Publish,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    status: int,
    reason: str,
    code: int,
) -> None:
    from botocore.exceptions import ClientError

    def refuse(*_: Any, **__: Any) -> None:
        details = {"Error": {"Code": error, "Message": SECRET_KEY}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(details, "PutObject")

    monkeypatch.setattr(s3._Store, "put", refuse)
    assert_refused(to_store(run, store), reason, code)
    assert not objects(bucket)


def test_a_store_that_does_not_answer_is_tried_again(run: Publish) -> None:
    assert_refused(to_store(run, "http://127.0.0.1:1"), "Unreachable", 70)


def test_a_store_at_the_metadata_address_is_refused(run: Publish) -> None:
    assert_refused(to_store(run, "http://169.254.169.254", is_trusted=None), "AddressRefused")


def test_a_destination_at_a_private_address_is_refused_unless_the_administrator_lists_it(
    run: Publish, store: str, hub: Hub
) -> None:
    assert_refused(to_store(run, store, is_trusted=None), "AddressRefused")
    assert_refused(
        run("hf://acme/tuned", {"HF_TOKEN": SECRET_KEY}, endpoint=hub.url, is_trusted=None), "AddressRefused"
    )
    code, result = run("oci://127.0.0.1:1/acme/tuned:v1", is_trusted=None)
    assert_refused((code, result), "AddressRefused")
    assert "oci.registries" in (result.verdict.hint or "")
    assert not hub.requests


def test_content_that_changes_after_the_check_is_not_published(
    bucket: Any, store: str, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = publish.bundle

    def then_changed(*arguments: Any) -> Any:
        files = real(*arguments)
        with (output / "artifact" / "model.safetensors").open("r+b") as file:
            file.write(b"x")
        return files

    monkeypatch.setattr(s3, "PART_BYTES", 100_000)
    monkeypatch.setattr(publish, "bundle", then_changed)
    assert_refused(to_store(run, store), "DigestMismatch", 70)
    assert "bots/a/SHA256SUMS" not in objects(bucket)


def test_a_changed_artifact_is_not_published(run: Publish, store: str, output: Path) -> None:
    with (output / "artifact" / "model.safetensors").open("r+b") as file:
        file.write(b"x")
    code, result = to_store(run, store)
    assert_refused((code, result), "ArtifactChanged")
    assert "model.safetensors" in result.verdict.message


# ---- Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub without the repository."""
    with serving(Hub(token=SECRET_KEY)) as server:
        yield server


def to_hub(run: Publish, hub: Hub, token: str = SECRET_KEY) -> tuple[int, StepResult]:
    """Publish to the hub."""
    return run("hf://acme/tuned", {"HF_TOKEN": token}, endpoint=hub.url)


def test_a_hub_gets_one_commit_with_all_files(hub: Hub, run: Publish, output: Path) -> None:
    code, result = to_hub(run, hub)
    assert code == 0, result.verdict
    assert_whole(dict(hub.files or {}), output, result)
    assert len(hub.commits) == 2
    assert result.published.revision == hub.commits[-1]
    hub.requests.clear()
    _, again = to_hub(run, hub)
    assert again == result
    assert len(hub.commits) == 2, "what is there is not committed again"


def test_a_cut_upload_commits_nothing_and_resumes(hub: Hub, run: Publish, output: Path) -> None:
    hub.refuse["PUT"] = (500, "")
    assert_refused(to_hub(run, hub), "Unreachable", 70)
    assert hub.files == {}
    hub.refuse.clear()
    code, result = to_hub(run, hub)
    assert code == 0
    assert_whole(dict(hub.files or {}), output, result)


def test_large_files_that_arrived_are_not_sent_again(hub: Hub, run: Publish) -> None:
    hub.files = {}
    hub.objects[hashlib.sha256(WEIGHTS).hexdigest()] = WEIGHTS
    to_hub(run, hub)
    assert not [each for each in hub.requests if each.startswith("PUT")]


def test_files_of_an_earlier_copy_are_removed_and_others_stay(hub: Hub, run: Publish) -> None:
    hub.files = {"SHA256SUMS": b"0  old.safetensors\n0  config.json\n", "old.safetensors": b"x", "mine.txt": b"y"}
    code, _ = to_hub(run, hub)
    assert code == 0
    assert "old.safetensors" not in hub.files
    assert hub.files["mine.txt"] == b"y"


def test_a_model_that_others_wrote_is_not_overwritten(hub: Hub, run: Publish) -> None:
    hub.files = {"model.safetensors": b"theirs"}
    assert_refused(to_hub(run, hub), "DestinationTaken")
    assert hub.files == {"model.safetensors": b"theirs"}


def test_a_hub_that_is_silent_has_a_minute_to_answer(run: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from huggingface_hub import get_session

    before = get_session().timeout
    monkeypatch.setattr(client, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert_refused(run("hf://acme/tuned", {"HF_TOKEN": SECRET_KEY}, endpoint=url), "Unreachable", 70)
    assert get_session().timeout == before


def test_signed_urls_are_not_logged(hub: Hub, run: Publish, capfd: pytest.CaptureFixture[str]) -> None:
    hub.refuse["PUT"] = (500, "")
    assert_refused(to_hub(run, hub), "Unreachable", 70)
    assert "PUT /lfs/" in "".join(hub.requests)
    assert "/lfs/" not in "".join(capfd.readouterr())


def test_a_line_break_at_the_end_of_a_secret_is_left_out(hub: Hub, run: Publish) -> None:
    code, result = to_hub(run, hub, f"{SECRET_KEY}\n")
    assert code == 0, result.verdict


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_errors_that_repeat_a_part_of_a_secret_are_shown_without_it(
    hub: Hub,
    registry: Registry,
    run: Publish,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: type[Exception],
) -> None:
    from huggingface_hub import HfApi

    def fail(self: Any, *_: Any, **__: Any) -> None:
        of_registry = f"or b'Basic {robot}'" if isinstance(self, oci._Registry) else ""
        raise kind(f"{'x' * padding} Illegal header value b'Bearer {SECRET_KEY}' {of_registry}")

    # The message of a ValueError is cut in the middle of the secret.
    padding = 155 if kind is ValueError else 0
    robot = base64.b64encode(f"robot:{SECRET_KEY}".encode()).decode()
    monkeypatch.setattr(HfApi, "create_repo", fail)
    monkeypatch.setattr(oci._Registry, "push", fail)
    for code, result in (to_hub(run, hub, f"{SECRET_KEY}\nanother-line"), to_registry(run, registry)):
        assert code != 0
        assert SECRET_KEY[:8] not in result.to_json()
    shown = "".join(capfd.readouterr())
    assert "Illegal header value b'Bearer $" in shown
    assert SECRET_KEY[:8] not in shown
    assert robot not in shown


def test_a_hub_that_lists_other_content_is_not_believed(hub: Hub, run: Publish) -> None:
    hub.lies = True
    assert_refused(to_hub(run, hub), "DigestMismatch", 70)


@pytest.mark.parametrize(
    ("status", "words", "reason", "code"),
    [
        (401, "", "CredentialsRefused", 64),
        (401, "The token has expired", "CredentialsExpired", 64),
        (403, "You have no write access", "AccessDenied", 64),
        (403, "Private repository storage limit reached", "DestinationFull", 70),
        (404, "", "NotFound", 64),
        (507, "", "DestinationFull", 70),
    ],
)
def test_what_a_hub_answers_is_told_apart(
    hub: Hub, run: Publish, status: int, words: str, reason: str, code: int
) -> None:
    hub.refuse["POST"] = (status, words)
    assert_refused(to_hub(run, hub), reason, code)


# ---- OCI


@pytest.fixture
def registry() -> Iterator[Registry]:
    """An empty registry."""
    with serving(Registry(token=SECRET_KEY)) as server:
        yield server


def to_registry(run: Publish, registry: Registry, password: str = SECRET_KEY, name: str = "acme/tuned") -> Any:
    """Publish to the registry."""
    host = registry.url.removeprefix("http://")
    auths = {"auths": {host: {"username": "robot", "password": password}}}
    return run(f"oci://{host}/{name}:v1", {"DOCKER_AUTH_CONFIG": json.dumps(auths)})


def unpacked(registry: Registry, tag: str) -> dict[str, bytes]:
    """The file system of an image, layer by layer."""
    files = {}
    image = json.loads(registry.manifests[tag])
    config = json.loads(registry.blobs[image["config"]["digest"]])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in image["layers"]]
    for layer in image["layers"]:
        with tarfile.open(fileobj=io.BytesIO(registry.blobs[layer["digest"]]), mode="r:") as archive:
            for entry in archive.getmembers():
                assert (entry.uid, entry.mtime, entry.mode) == (0, 0, 0o644)
                files[entry.name] = archive.extractfile(entry).read()
    return files


@pytest.mark.parametrize("uses_tokens", [False, True])
def test_a_registry_gets_an_image_with_all_files(
    registry: Registry, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch, uses_tokens: bool
) -> None:
    monkeypatch.setattr(oci, "LARGE_BYTES", 100_000)
    registry.uses_tokens = uses_tokens
    code, result = to_registry(run, registry)
    assert code == 0, result.verdict
    assert_whole(unpacked(registry, "v1"), output, result)
    assert len(json.loads(registry.manifests["v1"])["layers"]) == 2
    assert result.published.revision == f"sha256:{hashlib.sha256(registry.manifests['v1']).hexdigest()}"
    puts = [each for each in registry.requests if each.startswith("PUT")]
    assert puts[-2:] == [f"PUT /v2/acme/tuned/manifests/{result.published.revision}", "PUT /v2/acme/tuned/manifests/v1"]


def test_a_cut_layer_leaves_no_tag_and_whole_ones_are_not_sent_again(
    registry: Registry, run: Publish, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci, "LARGE_BYTES", 100_000)
    registry.cut_after = len(WEIGHTS) // 2
    assert_refused(to_registry(run, registry), "Unreachable", 70)
    assert not registry.manifests
    with monkeypatch.context() as patch:
        patch.setattr(oci._Registry, "push_manifest", lambda *_: (_ for _ in ()).throw(OSError("cut")))
        assert_refused(to_registry(run, registry), "Unreachable", 70)
    assert not registry.manifests
    registry.requests.clear()
    code, result = to_registry(run, registry)
    assert code == 0
    assert not [each for each in registry.requests if "uploads" in each]
    assert_whole(unpacked(registry, "v1"), output, result)


def test_a_registry_that_finds_another_digest_is_not_believed(registry: Registry, run: Publish) -> None:
    registry.lies = True
    assert_refused(to_registry(run, registry), "DigestMismatch", 70)
    assert not registry.manifests


def test_what_a_registry_answers_is_told_apart(registry: Registry, run: Publish) -> None:
    assert_refused(to_registry(run, registry, password="wrong-password"), "CredentialsRefused")
    registry.uses_tokens = True
    assert_refused(to_registry(run, registry, password="wrong-password"), "CredentialsRefused")
    assert_refused(to_registry(run, registry, name="acme/absent"), "NotFound")
    for status, reason, code in ((403, "AccessDenied", 64), (507, "DestinationFull", 70), (503, "Unreachable", 70)):
        registry.refuse["POST"] = (status, "")
        assert_refused(to_registry(run, registry), reason, code)


def test_a_secret_that_is_no_docker_configuration_is_refused(run: Publish, registry: Registry) -> None:
    host = registry.url.removeprefix("http://")
    answer = run(f"oci://{host}/acme/tuned:v1", {"DOCKER_AUTH_CONFIG": SECRET_KEY})
    assert_refused(answer, "CredentialsRefused")


def test_the_credentials_are_taken_out_of_the_environment(
    hub: Hub, run: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real = publish.bundle

    def check(*arguments: Any) -> Any:
        assert SECRET_KEY not in "".join(os.environ.values())
        return real(*arguments)

    monkeypatch.setattr(publish, "bundle", check)
    code, result = to_hub(run, hub)
    assert code == 0, result.verdict


@pytest.mark.parametrize("goes_well", [True, False])
@pytest.mark.parametrize("scheme", ["s3", "hf", "oci"])
def test_a_planted_secret_is_found_nowhere(
    scheme: str,
    goes_well: bool,
    bucket: Any,
    store: str,
    hub: Hub,
    registry: Registry,
    run: Publish,
    output: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither in logs nor in the termination message, on the claim, in what was published, or in arguments."""
    if not goes_well:
        # Servers may repeat what they were sent.
        hub.refuse["POST"] = registry.refuse["POST"] = (403, f"no access with {SECRET_KEY}")
    uri = "s3://tuned/bots/a" if goes_well else "s3://absent/a"
    answers = {
        "s3": lambda: to_store(run, store, uri=uri),
        "hf": lambda: to_hub(run, hub),
        "oci": lambda: to_registry(run, registry),
    }
    code, result = answers[scheme]()
    assert (code == 0) == goes_well, result.verdict
    logs = "".join(capfd.readouterr())
    assert "ended" in logs, "the sweep would see what is logged"
    basic = base64.b64encode(f"robot:{SECRET_KEY}".encode()).decode()
    published = [*objects(bucket).values(), *(hub.files or {}).values(), *registry.blobs.values()]
    claim = [path.read_bytes() for path in output.parent.rglob("*") if path.is_file()]
    swept = [logs.encode(), result.to_json().encode(), Path("/proc/self/cmdline").read_bytes(), *published, *claim]
    for secret in (SECRET_KEY.encode(), basic.encode()):
        assert not [content for content in swept if secret in content]
