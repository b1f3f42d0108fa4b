"""A server of a published model: what an inspection reports, and that only what it saw is ever served."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub_server
import published
import pytest
import store_server
from store_server import BUCKET, Store

from hone.contract.results import StepResult
from hone.contract.runconfig import Download
from hone.contract.served import FETCH_ENV, Fetch
from hone.contract.stores import S3Store
from hone_trainer import fetch
from hone_trainer.models.facts import model_digest, model_digests
from hone_trainer.protocol.errors import ArtifactChanged, BadInput
from hone_trainer.protocol.results import TERMINATION_LOG_ENV

pytestmark = pytest.mark.slow

MODEL = published.model()
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "planted-secret"}
VARIABLES = {key: f"{key}_MODEL" for key in KEYS}


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """A store for the tests of this file."""
    with store_server.serving() as store:
        yield store


@pytest.fixture
def store(server: Store) -> Store:
    """The same, with a published model."""
    server.__init__(url=server.url)  # type: ignore[misc]
    put(server, MODEL)
    return server


def put(store: Store, files: dict[str, bytes], **others: bytes) -> None:
    """Replace what was published."""
    store.put({f"out/v1/{name}": content for name, content in files.items()} | others)


def at_s3(store: Store, volume: Path, **fields: Any) -> Fetch:
    """A model in the store."""
    os.environ.update({variable: KEYS[key] for key, variable in VARIABLES.items()})
    digest = fields.pop("digest", None)
    artifact = Download(
        field="spec.model",
        uri=f"s3://{BUCKET}/out/v1",
        downloaded=str(volume / "artifact"),
        s3=S3Store(endpoint=store.url),
        is_trusted=True,
        credentials=VARIABLES,
        sums=digest or "",
    )
    return Fetch(directory=str(volume / "artifact"), artifact=artifact, digest=digest, **fields)


def at_hub(hub: hub_server.Hub, volume: Path, revision: str | None = None, digest: str | None = None) -> Fetch:
    """A model on the Hub."""
    artifact = Download(
        field="spec.model",
        uri="hf://acme/tiny",
        revision=revision,
        downloaded=str(volume / "artifact"),
        endpoint=hub.url,
        sums=digest or "",
    )
    return Fetch(directory=str(volume / "artifact"), artifact=artifact, digest=digest)


def mounted(directory: Path, files: dict[str, bytes], **fields: Any) -> Fetch:
    """A model in an image."""
    write(directory, files)
    return Fetch(directory=str(directory), **fields)


def write(directory: Path, files: dict[str, bytes]) -> None:
    """Files in a directory."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def read(directory: Path) -> dict[str, bytes]:
    """What a server finds, without our own record of it."""
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != "MANIFEST.json"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def base(directory: Path) -> str:
    """A base model; returns its digest."""
    write(directory, {"config.json": b'{"model_type": "llama"}', "model.safetensors": published.WEIGHTS})
    return model_digest(directory)


def test_a_published_model_is_inspected_without_its_weights_and_then_downloaded(store: Store, tmp_path: Path) -> None:
    seen = fetch.inspect(at_s3(store, tmp_path))
    assert (seen.artifact.kind, seen.artifact.api, seen.revision) == ("Model", "Chat", None)
    assert seen.artifact.digest == published.digest(MODEL)
    assert seen.artifact.size_bytes == sum(map(len, MODEL.values()))
    assert seen.weights_bytes == len(published.WEIGHTS)
    assert "out/v1/model.safetensors" not in store.sent
    fetch.fetch_model(at_s3(store, tmp_path / "server", digest=seen.artifact.digest))
    assert read(tmp_path / "server" / "artifact") == MODEL
    assert not set(VARIABLES.values()) & set(os.environ), "what loads the model later sees no credentials"


def test_a_branch_of_the_hub_is_reported_as_a_commit_which_is_then_used(tmp_path: Path) -> None:
    other = published.model(**{"README.md": b"another"})
    with hub_server.serving(hub_server.Hub(commits={hub_server.COMMIT: MODEL, hub_server.LATER: other})) as hub:
        seen = fetch.inspect(at_hub(hub, tmp_path))
        assert seen.revision == hub_server.COMMIT
        hub.branch = hub_server.LATER
        fetch.fetch_model(at_hub(hub, tmp_path / "server", seen.revision, seen.artifact.digest))
        assert read(tmp_path / "server" / "artifact") == MODEL
        with pytest.raises(ArtifactChanged, match="instead of"):
            fetch.fetch_model(at_hub(hub, tmp_path / "other", "main", seen.artifact.digest))


@pytest.mark.parametrize(
    ("config", "api"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "Classify"),
        ({"architectures": ["LlamaForSequenceClassification"], "problem_type": "regression"}, "Reward"),
    ],
)
def test_the_api_follows_from_the_config(store: Store, tmp_path: Path, config: dict[str, Any], api: str) -> None:
    put(store, published.model(**{"config.json": json.dumps({**published.CONFIG, **config}).encode()}))
    assert fetch.inspect(at_s3(store, tmp_path)).artifact.api == api


def changed_weights(store: Store) -> None:
    put(store, {**MODEL, "model.safetensors": b"\xff" + published.WEIGHTS[1:]})


def shorter_weights(store: Store) -> None:
    put(store, {**MODEL, "model.safetensors": published.WEIGHTS[1:]})


def another_model(store: Store) -> None:
    put(store, published.model(**{"README.md": b"another"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed_weights, "'model.safetensors' has other content than SHA256SUMS says"),
        (shorter_weights, "'model.safetensors' has other content than SHA256SUMS says"),
        (another_model, "another artifact was published there"),
    ],
)
def test_what_was_changed_since_the_inspection_is_never_there(
    store: Store, tmp_path: Path, change: Callable[[Store], None], words: str
) -> None:
    change(store)
    with pytest.raises(ArtifactChanged, match=words) as caught:
        fetch.fetch_model(at_s3(store, tmp_path, digest=published.digest(MODEL)))
    assert caught.value.verdict().reason == "ArtifactChanged"
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.safetensors": b"w", "config.json": b"{}"}, "has no SHA256SUMS"),
        ({name: content for name, content in MODEL.items() if name != "README.md"}, "'README.md', which is not there"),
        ({**MODEL, "SHA256SUMS": b"not a digest\n"}, "line 1 of SHA256SUMS"),
        ({**MODEL, "SHA256SUMS": b"%s  ../../etc/passwd\n" % (b"0" * 64)}, "leads out of its directory"),
        ({**MODEL, "SHA256SUMS": 2 * MODEL["SHA256SUMS"]}, "names one again"),
        (published.with_sums({"README.md": b"card"}), "has neither config.json nor adapter_config.json"),
        (published.with_sums({"config.json": b"{}", "pytorch_model.bin": b"x"}), "has no weights in .safetensors"),
        (published.model(**{"adapter_config.json": b"{}"}), "has both config.json and adapter_config.json"),
        (published.model(**{"config.json": b'{"auto_map": {"AutoModel": "evil.Model"}}'}), "auto_map"),
        (published.model(**{"config.json": b" " * (17 << 20)}), "config.json has 17825792 bytes"),
    ],
)
def test_what_no_job_has_published_is_refused(
    store: Store, tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    put(store, files)
    with pytest.raises(BadInput, match=words) as caught:
        fetch.inspect(at_s3(store, tmp_path))
    assert caught.value.field.startswith("spec.model")


def test_an_adapter_is_served_with_the_base_that_its_provenance_names(store: Store, tmp_path: Path) -> None:
    digest, base_files = base(tmp_path / "base"), model_digests(tmp_path / "base")[1]
    files = published.adapter(digest, base_files, rank_pattern={"q_proj": 16})
    put(store, files)
    fields = {"base_directory": str(tmp_path / "base")}
    seen = fetch.inspect(at_s3(store, tmp_path, **fields))
    assert (seen.artifact.kind, seen.artifact.lora_rank, seen.artifact.base) == ("Adapter", 16, "tiny")
    assert seen.weights_bytes == 512 + len(published.WEIGHTS)
    known = {**fields, "base_digest": seen.artifact.base_digest, "digest": seen.artifact.digest}
    fetch.fetch_model(at_s3(store, tmp_path / "server", **known))
    (tmp_path / "base" / "model.safetensors").write_bytes(b"\xff" + published.WEIGHTS[1:])
    with pytest.raises(
        ArtifactChanged, match=r"its base model is not the one .*: 'model\.safetensors' was changed$"
    ) as caught:
        fetch.fetch_model(at_s3(store, tmp_path / "later", **known))
    assert caught.value.field == "spec.model.base"


def test_the_base_of_an_adapter_is_downloaded_from_its_own_place(store: Store, tmp_path: Path) -> None:
    digest = base(tmp_path / "original")
    put(store, published.adapter(digest))
    there = {hub_server.COMMIT: read(tmp_path / "original")}
    with hub_server.serving(hub_server.Hub(commits=there)) as hub:
        into = str(tmp_path / "volume" / "model")
        download = Download(field="spec.model.base", uri="hf://acme/tiny", downloaded=into, endpoint=hub.url)
        fields: dict[str, Any] = {"base_directory": into, "base": download}
        seen = fetch.inspect(at_s3(store, tmp_path, **fields))
        assert seen.base_revision == hub_server.COMMIT
        assert not Path(into).exists()
        fields |= {"base_digest": digest, "digest": seen.artifact.digest}
        fetch.fetch_model(at_s3(store, tmp_path / "server", **fields))
        assert read(Path(into)) == there[hub_server.COMMIT]


@pytest.mark.parametrize(("is_adapter", "words"), [(True, "is required"), (False, "is not allowed")])
def test_adapters_need_a_base_and_whole_models_need_none(
    store: Store, tmp_path: Path, is_adapter: bool, words: str
) -> None:
    digest = base(tmp_path / "base")
    put(store, published.adapter(digest) if is_adapter else MODEL)
    with pytest.raises(BadInput, match=words) as caught:
        fetch.inspect(at_s3(store, tmp_path, base_directory=None if is_adapter else str(tmp_path / "base")))
    assert caught.value.field == "spec.model.base"


def test_a_model_in_an_image_is_checked_where_it_is_mounted(tmp_path: Path) -> None:
    seen = fetch.inspect(mounted(tmp_path / "image", MODEL))
    there = mounted(tmp_path / "image", {}, digest=seen.artifact.digest)
    fetch.fetch_model(there)
    write(tmp_path / "image", {"added.py": b"code"})
    with pytest.raises(ArtifactChanged, match=r"'added\.py' was added"):
        fetch.fetch_model(there)
    (tmp_path / "image" / "added.py").unlink()
    write(tmp_path / "image", {"model.safetensors": b"\xff" + published.WEIGHTS[1:]})
    with pytest.raises(ArtifactChanged, match=r"'model.safetensors' has other content"):
        fetch.fetch_model(there)


def test_a_list_of_files_in_an_image_that_leads_out_is_refused_by_a_field_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="leads out") as caught:
        fetch.fetch_model(mounted(tmp_path / "image", {"SHA256SUMS": f"{'0' * 64}  ../x\n".encode()}))
    assert caught.value.field == "spec.model.image"


@pytest.mark.parametrize("kind", ["expired", "denied"])
def test_refused_credentials_are_named_without_their_values(
    store: Store, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.error = {"expired": (400, "ExpiredToken"), "denied": (403, "AccessDenied")}[kind]
    monkeypatch.setenv(FETCH_ENV, at_s3(store, tmp_path).to_json())
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(tmp_path / "message"))
    assert fetch.run("inspect") == 64
    words = (tmp_path / "message").read_text()
    verdict = StepResult.model_validate_json(words).verdict
    assert verdict is not None
    assert verdict.message.startswith("spec.model.credentialsSecretRef")
    assert not any(value in words for value in KEYS.values())


def test_a_download_that_was_cut_goes_on_in_the_same_pod(store: Store, tmp_path: Path) -> None:
    store.cut_after = 50_000
    there = at_s3(store, tmp_path, digest=published.digest(MODEL))
    fetch.fetch_model(there)
    assert read(tmp_path / "artifact") == MODEL
    before = dict(store.sent)
    fetch.fetch_model(at_s3(store, tmp_path, digest=published.digest(MODEL)))
    assert store.sent == before, "the container was restarted, and nothing is downloaded again"
