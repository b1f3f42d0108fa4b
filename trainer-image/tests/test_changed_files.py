"""One byte of an artifact or of its base is changed: the server's own check refuses it, and the status names the file.

The check is run as the operator renders it, on real files, and its words are those of the pod.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from hone_trainer import verify
from hone_trainer.artifact.difference import base_files
from hone_trainer.models.facts import model_digest
from hone_trainer.protocol import manifest
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster

FILES = {
    "artifact": ("artifact/artifact/adapter_model.safetensors", "'adapter_model.safetensors' has other content"),
    "base": ("model/tiny/model.safetensors", "'model.safetensors' was changed"),
}


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """What a server of an adapter mounts in /mnt: the artifact's claim with the report, and its base."""
    artifact, base = tmp_path / "artifact/artifact", tmp_path / "model/tiny"
    for directory, name in ((artifact, "adapter_model.safetensors"), (base, "model.safetensors")):
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{}")
        (directory / name).write_bytes(b"w" * 5000)
    report = {
        "files": [file.to_dict() for file in manifest.list_files(artifact)],
        "baseFiles": [file.to_dict() for file in base_files(base)],
    }
    (artifact.parent / "report.json").write_text(json.dumps(report))
    return tmp_path


def job(volumes: Path) -> dict[str, Any]:
    """The job that made it, with the digests that it has reported."""
    complete = make.complete_job(manifest.digest_of(manifest.list_files(volumes / "artifact/artifact")))
    complete["status"]["artifact"]["baseDigest"] = model_digest(volumes / "model/tiny")
    return complete


def deployment(cluster: FakeCluster) -> dict[str, Any]:
    return next(obj for ref, obj in cluster.objects.items() if ref.kind == "Deployment")


def start_pod(cluster: FakeCluster, volumes: Path, patch: pytest.MonkeyPatch) -> int:
    """Start another pod of the Deployment: run its check, and show how that ended; returns the exit code."""
    template = deployment(cluster)["spec"]["template"]
    (check,) = template["spec"]["initContainers"]
    assert check["command"] == ["python", "-m", "hone_trainer.verify"]
    words = volumes / "term"
    words.write_text("")
    patch.setenv("HONE_TERMINATION_LOG", str(words))
    code = verify.main([argument.replace("/mnt/", f"{volumes}/") for argument in check["args"]])
    state = {"name": "verify", "ready": code == 0, "state": make.exited(code, words.read_text())}
    pod = make.pod("next", state={"waiting": {"reason": "PodInitializing"}}, labels=template["metadata"]["labels"]).raw
    pod["status"]["initContainerStatuses"] = [state]
    cluster.pods["next"] = {"apiVersion": "v1", "kind": "Pod", **pod}
    return code


def serves(cluster: FakeCluster, replicas: int, updated: int) -> None:
    """What the Deployment controller says: so many pods, of which all but the new ones answer."""
    live = deployment(cluster)
    ready = replicas - (0 if updated == replicas else 1)
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }


@pytest.mark.parametrize("changed", FILES)
@pytest.mark.parametrize("serving", [False, True], ids=["stopped", "while-serving"])
def test_it_is_not_served_and_what_serves_stays(
    changed: str, serving: bool, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster(make.modeldeployment()).add(make.claim("base-models"), make.artifact_claim(), job(volumes))
    cluster.converge()
    if serving:
        assert start_pod(cluster, volumes, monkeypatch) == 0
        cluster.pods.clear()
        serves(cluster, 1, 1)
        cluster.converge()
        assert cluster.condition("Ready") == ("True", "Serving")
    path, words = FILES[changed]
    with (volumes / path).open("r+b") as file:
        file.seek(4000)
        file.write(b"x")
    if serving:
        serves(cluster, 2, 1)
    assert start_pod(cluster, volumes, monkeypatch) == 64
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", "ArtifactChanged")
    assert words in cluster.message("Stalled")
    assert cluster.condition("Available")[0] == ("True" if serving else "False")
    assert deployment(cluster)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert [event for event in cluster.events if event.reason == "ArtifactChanged"]
