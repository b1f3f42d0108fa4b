"""Models of the Hugging Face Hub: downloaded once, whole, as listed, and from public addresses only."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, LATER, Hub, serving

from hone.contract.results import DownloadedModel, StepResult
from hone.contract.runconfig import Download, RunConfig
from hone_trainer.downloads import download as module
from hone_trainer.downloads.download import ensure_downloaded
from hone_trainer.downloads.hub import HubUnreachable
from hone_trainer.downloads.remote import Unreachable
from hone_trainer.models.facts import model_digest
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import load_plan

WEIGHTS = bytes(range(256)) * 4096
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "consolidated.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"onnx",
    "README.md": b"words",
}
pytestmark = pytest.mark.slow

READ = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one model in two commits."""
    commits = {COMMIT: dict(FILES), LATER: {**FILES, "config.json": b'{"later": true}'}}
    with serving(Hub(commits=commits)) as server:
        yield server


def entry(hub: Hub, workspace: Path, run: str = "a", **fields: str | None) -> Download:
    """The model as a run reads it."""
    arguments: dict[str, str | None] = {"uri": "hf://acme/tiny", "endpoint": hub.url, **fields}
    return Download.model_validate(
        {"field": "spec.model", "downloaded": str(workspace / "models" / f"{run}-model"), **arguments}, by_name=True
    )


def fetch(hub: Hub, workspace: Path, run: str = "a", **fields: str | None) -> DownloadedModel:
    """Download it."""
    return ensure_downloaded(entry(hub, workspace, run, **fields))


def test_what_a_model_consists_of_is_downloaded_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    model = fetch(hub, tmp_path)
    directory = tmp_path / "models" / "a-model"
    assert {path.name for path in directory.iterdir()} == {*READ, "MANIFEST.json"}
    assert all((directory / name).read_bytes() == FILES[name] for name in READ)
    assert model.revision == COMMIT
    assert model.size_bytes == sum(len(FILES[name]) for name in READ)
    assert not [path for path in (tmp_path / "models").iterdir() if path.name.startswith(".")]


def test_the_next_job_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.sent.clear()
    assert fetch(hub, tmp_path, "b").revision == COMMIT
    assert hub.sent == {}
    first, second = (tmp_path / "models" / f"{run}-model" / "model.safetensors" for run in "ab")
    assert first.stat().st_ino == second.stat().st_ino, "the weights lie on the volume twice"


def test_a_run_keeps_its_commit_when_the_branch_moves(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.branch = LATER
    assert fetch(hub, tmp_path).revision == COMMIT
    assert fetch(hub, tmp_path, "b").revision == LATER
    assert fetch(hub, tmp_path, "c", revision=COMMIT).revision == COMMIT


def test_a_run_keeps_its_files_when_the_common_directory_is_removed(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    for path in (tmp_path / "models").glob("hub-*/*"):
        path.unlink()
    hub.status = 500
    assert fetch(hub, tmp_path).revision == COMMIT


def test_a_changed_byte_is_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    weights = tmp_path / "models" / "a-model" / "model.safetensors"
    with weights.open("r+b") as file:
        file.write(b"x")
    os.utime(weights, (1, 1))
    fetch(hub, tmp_path)
    assert weights.read_bytes() == WEIGHTS


def test_a_download_that_was_cut_resumes(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.cut_after = len(WEIGHTS) // 2
    fetch(hub, tmp_path)
    assert (tmp_path / "models" / "a-model" / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent["model.safetensors"] == len(WEIGHTS), "bytes were sent twice"


def test_files_that_are_whole_are_not_downloaded_again_after_a_kill(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    whole: set[str] = set()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        partial = next((tmp_path / "models").glob(".downloading-*"))
        whole.update(path.name for path in partial.iterdir() if path.is_file())
        raise Killed

    with monkeypatch.context() as patch:
        hub.cut_after = len(WEIGHTS) // 2
        patch.setattr(file_download.logger, "warning", killed)
        with pytest.raises(Killed):
            fetch(hub, tmp_path)
    assert not (tmp_path / "models" / "a-model").exists()
    hub.sent.clear()
    fetch(hub, tmp_path)
    assert "model.safetensors" in hub.sent
    assert not whole & set(hub.sent)


def test_a_branch_that_moved_between_two_attempts_leaves_no_file_of_the_older_commit(hub: Hub, tmp_path: Path) -> None:
    hub.commits[COMMIT]["older.json"] = b"{}"
    hub.lies = True
    with pytest.raises(Unreachable):
        fetch(hub, tmp_path)
    hub.lies, hub.branch = False, LATER
    assert fetch(hub, tmp_path).revision == LATER
    assert {path.name for path in (tmp_path / "models" / "a-model").iterdir()} == {*READ, "MANIFEST.json"}


def test_content_that_is_not_as_listed_is_never_used(hub: Hub, tmp_path: Path) -> None:
    hub.lies = True
    with pytest.raises(Unreachable, match="other content than listed"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "models" / "a-model").exists()
    assert not list((tmp_path / "models").glob("hub-*"))


@pytest.mark.parametrize("token", [None, "wrong"])
def test_what_the_hub_refuses_is_told_apart(
    hub: Hub, tmp_path: Path, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "right"
    variable = None if token is None else "HF_TOKEN_MODEL"
    monkeypatch.setenv("HF_TOKEN_MODEL", str(token))
    with pytest.raises(BadInput) as caught:
        fetch(hub, tmp_path, token_variable=variable)
    if token is None:
        assert caught.value.field == "spec.model.uri"
        assert "it is private" in caught.value.message
    else:
        assert caught.value.field == "spec.model.credentialsSecretRef"
        assert "refused the token" in caught.value.message
        assert token not in str(caught.value)


def test_a_token_is_used_and_leaves_the_environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "right"
    monkeypatch.setenv("HF_TOKEN_MODEL", "right")
    assert fetch(hub, tmp_path, token_variable="HF_TOKEN_MODEL").revision == COMMIT
    assert "HF_TOKEN_MODEL" not in os.environ
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"right" in path.read_bytes()]


def test_a_gated_model_asks_for_access(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(BadInput, match="is gated") as caught:
        fetch(hub, tmp_path)
    assert "credentialsSecretRef" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"uri": "hf://acme/none"}, "spec.model.uri", "no such model"),
        ({"revision": "v9"}, "spec.model.revision", "no branch, tag or commit 'v9'"),
        ({"uri": "hf://acme/a--b"}, "spec.model.uri", "no name of a model"),
    ],
)
def test_what_is_not_there_is_bad_input(
    hub: Hub, tmp_path: Path, fields: dict[str, str], field: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        fetch(hub, tmp_path, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"pickle"}, "has no model.safetensors"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "is an adapter"),
    ],
)
def test_models_without_whole_safetensors_are_refused(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    hub.commits[COMMIT] = files
    with pytest.raises(BadInput, match=words):
        fetch(hub, tmp_path)
    assert hub.sent == {}


def test_a_server_error_may_pass(hub: Hub, tmp_path: Path) -> None:
    hub.status = 503
    with pytest.raises(HubUnreachable, match="status 503"):
        fetch(hub, tmp_path)


def test_a_workspace_that_is_too_small_is_told_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadInput, match=r"spec\.workspace\.size"):
        fetch(hub, tmp_path)
    assert hub.sent == {}


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data", "http://[::1]:6443/api", "http://10.0.0.1"]
)
def test_redirects_to_private_addresses_are_not_followed(hub: Hub, tmp_path: Path, target: str) -> None:
    hub.redirect = target
    with pytest.raises(BadInput, match="no public address"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "models" / "a-model").exists()


def test_only_the_administrator_may_name_a_hub_with_a_private_address(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # as HF_ENDPOINT in a job's environment
    with pytest.raises(BadInput, match=r"127\.0\.0\.1, which is no public address"):
        fetch(hub, tmp_path, endpoint=None)


def test_other_libraries_stay_offline(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    fetch(hub, tmp_path)
    assert before == constants.HF_HUB_OFFLINE


def test_links_are_copies_where_the_volume_has_none(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(module.os, "link", refuse)
    fetch(hub, tmp_path)
    assert (tmp_path / "models" / "a-model" / "model.safetensors").read_bytes() == WEIGHTS


def test_a_job_is_prepared_from_a_model_of_the_hub(
    hub: Hub, make_config: Any, tmp_path: Path, tiny_model: Path
) -> None:
    """In a process of its own, as the image runs it: only the workspace can be written."""
    hub.commits[COMMIT] = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    hub.token = "right"
    config = make_config()
    download = entry(hub, tmp_path / "workspace", token_variable="HF_TOKEN_MODEL")
    config["paths"]["model"] = download.downloaded
    config["merges"] = [download.to_dict()]
    (tmp_path / "run.json").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "HONE_RUN_CONFIG": str(tmp_path / "run.json"),
        "HONE_TERMINATION_LOG": str(tmp_path / "termination-log"),
        "HF_HOME": "/proc/none",
        "HF_TOKEN_MODEL": "right",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "hone_trainer.prepare"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = StepResult.model_validate_json((tmp_path / "termination-log").read_text())
    [model] = result.downloads
    assert (model.field, model.revision) == ("spec.model", COMMIT)
    plan = load_plan(RunConfig.from_dict(config))
    assert plan is not None
    assert plan.downloads == result.downloads
    assert plan.model_digest == model_digest(tiny_model)
    assert "right" not in ended.stdout + ended.stderr
