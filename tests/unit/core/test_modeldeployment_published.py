"""A ModelDeployment of a published model: inspected once, then served by its digest, from wherever it is."""

from typing import Any

import pytest

from hone.contract.results import ArtifactSummary, InspectedModel, StepResult
from hone.contract.served import FETCH_ENV, Fetch
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import deployment, roll_out

COMMIT = "1" * 40
DIGEST, OTHER, BASE = ("sha256:" + character * 64 for character in "abc")
AT_S3 = {
    "uri": "s3://models/support/v1",
    "s3": {"endpoint": "https://s3.example.com"},
    "credentialsSecretRef": {"name": "store"},
}
AT_HUB = {"uri": "hf://acme/support", "revision": "main"}
IN_IMAGE = {"image": {"reference": f"registry.example.com/a@{DIGEST}", "path": "model"}}


def published(model: dict[str, Any], **spec: Any) -> FakeCluster:
    return FakeCluster(make.modeldeployment(**{"model": model, **spec}))


def seen(digest: str = DIGEST, **more: Any) -> StepResult:
    """What an inspection reports."""
    fields = {"kind": "Model", "api": "Chat", "size_bytes": 2_000_000_000, **more.pop("artifact", {})}
    artifact = ArtifactSummary(digest=digest, **fields)
    return StepResult(step="inspect", inspected=InspectedModel(artifact=artifact, weights_bytes=1_900_000_000, **more))


def inspected(model: dict[str, Any], result: StepResult | None = None, **spec: Any) -> FakeCluster:
    """A cluster in which the model was inspected and is rolled out."""
    cluster = published(model, **spec)
    cluster.converge()
    cluster.complete(result or seen())
    cluster.converge()
    return cluster


def served(model: dict[str, Any], result: StepResult | None = None) -> FakeCluster:
    """The same, with all servers ready."""
    cluster = inspected(model, result)
    roll_out(cluster)
    cluster.converge()
    return cluster


def pod(cluster: FakeCluster) -> dict[str, Any]:
    return dict(deployment(cluster)["spec"]["template"]["spec"])


def fetch_of(container: dict[str, Any]) -> Fetch:
    return Fetch.model_validate_json(next(each["value"] for each in container["env"] if each["name"] == FETCH_ENV))


def secrets_of(container: dict[str, Any]) -> set[str]:
    return {each["name"] for each in container.get("env", []) if "valueFrom" in each}


def kinds(cluster: FakeCluster) -> list[str]:
    return [ref.kind for ref in cluster.created]


def test_one_pod_inspects_the_model_before_anything_else_exists() -> None:
    cluster = published(AT_S3)
    plan = cluster.reconcile()
    assert [apply.body["kind"] for apply in plan.apply] == ["NetworkPolicy"]
    assert (plan.create, plan.requeue_after) == ((), 0.0), "no pod without the policy"
    cluster.converge()
    assert kinds(cluster) == ["NetworkPolicy", "Job"]
    assert cluster.condition("Reconciling") == ("True", "Inspecting")
    assert cluster.status["phase"] == "Waiting"
    container = cluster.job()["spec"]["template"]["spec"]["containers"][0]
    assert secrets_of(container) == {
        f"AWS_{key}_MODEL" for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    }
    assert fetch_of(container).digest is None


def test_without_network_policies_the_job_is_created_at_once() -> None:
    from hone.core.settings import Settings

    cluster = published(AT_S3)
    cluster.settings = Settings()
    cluster.converge()
    assert kinds(cluster) == ["Job"]


def test_what_was_seen_is_served_by_its_digest_and_commit() -> None:
    cluster = served(AT_HUB, seen(revision=COMMIT))
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.status["stable"]["digest"] == DIGEST
    assert cluster.status["resolved"]["model"] == {**AT_HUB, "revision": COMMIT, "digest": DIGEST}
    first = pod(cluster)["initContainers"][0]
    fetch = fetch_of(first)
    assert first["name"] == "fetch"
    assert fetch.artifact is not None
    assert (fetch.artifact.revision, fetch.artifact.sums, fetch.digest) == (COMMIT, DIGEST, DIGEST)
    assert int(first["resources"]["requests"]["ephemeral-storage"]) > 2_000_000_000
    assert "Event" not in kinds(cluster)
    assert not any(ref.kind == "PersistentVolumeClaim" for ref in cluster.objects)


def test_only_the_container_that_downloads_has_credentials_and_only_it_writes() -> None:
    spec = pod(inspected(AT_S3))
    assert len(secrets_of(spec["initContainers"][0])) == 3
    server = spec["containers"][0]
    assert secrets_of(server) == set()
    mounts = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    assert mounts["/mnt/artifact"]["readOnly"] is True
    assert "readOnly" not in next(
        m for m in spec["initContainers"][0]["volumeMounts"] if m["mountPath"] == "/mnt/artifact"
    )
    assert "--model=/mnt/artifact/artifact" in server["args"]


def test_a_model_in_an_image_is_mounted_and_nothing_is_downloaded() -> None:
    cluster = inspected(IN_IMAGE)
    spec = pod(cluster)
    reference = IN_IMAGE["image"]["reference"]
    assert [v["image"]["reference"] for v in spec["volumes"] if "image" in v] == [reference]
    assert "--model=/mnt/artifact/artifact/model" in spec["containers"][0]["args"]
    assert fetch_of(spec["initContainers"][0]).artifact is None
    policy = next(obj for ref, obj in cluster.objects.items() if ref.kind == "NetworkPolicy")
    assert not any("to" in rule for rule in policy["spec"]["egress"])


def test_where_something_is_downloaded_pods_may_reach_public_addresses_on_port_443() -> None:
    cluster = published({**IN_IMAGE, "base": AT_HUB})
    cluster.converge()
    policy = next(obj for ref, obj in cluster.objects.items() if ref.kind == "NetworkPolicy")
    rule = next(rule for rule in policy["spec"]["egress"] if "to" in rule)
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


def test_pods_of_the_old_revision_may_download_until_the_new_one_is_rolled_out() -> None:
    def may_download() -> bool:
        policy = next(obj for ref, obj in cluster.objects.items() if ref.kind == "NetworkPolicy")
        return any({"port": 443, "protocol": "TCP"} in rule["ports"] for rule in policy["spec"]["egress"])

    cluster = served(AT_S3)
    cluster.edit(model=IN_IMAGE)
    cluster.converge()
    cluster.complete(seen(OTHER))
    cluster.converge()
    assert cluster.status["candidate"]["digest"] == OTHER
    assert may_download(), "a pod of the old revision may be evicted, and start on another node"
    roll_out(cluster)
    cluster.converge()
    assert not may_download()


@pytest.mark.parametrize(
    ("base", "directory", "volume"),
    [
        ({"claim": {"name": "bases", "path": "tiny"}}, "/mnt/model/tiny", "persistentVolumeClaim"),
        (AT_HUB, "/mnt/model/model", "emptyDir"),
        ({"image": {"reference": f"registry.example.com/b@{OTHER}"}}, "/mnt/model", "image"),
    ],
)
def test_an_adapter_has_a_base_from_its_own_place(base: dict[str, Any], directory: str, volume: str) -> None:
    facts = {"kind": "Adapter", "lora_rank": 8, "base": "tiny", "base_digest": BASE}
    cluster = inspected({**AT_S3, "base": base}, seen(artifact=facts, base_revision=COMMIT))
    spec = pod(cluster)
    arguments = spec["containers"][0]["args"]
    assert f"--model={directory}" in arguments
    assert any(argument == "--lora-modules=bot=/mnt/artifact/artifact" for argument in arguments)
    fetch = fetch_of(spec["initContainers"][0])
    assert (fetch.base_directory, fetch.base_digest) == (directory, BASE)
    mount = next(m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == "/mnt/model")
    assert mount["readOnly"] is True
    assert volume in next(v for v in spec["volumes"] if v["name"] == mount["name"])
    assert (fetch.base is not None) == ("uri" in base)
    if fetch.base is not None:
        assert fetch.base.revision == COMMIT


def test_what_no_job_published_stalls_with_the_words_of_the_inspection() -> None:
    cluster = published(AT_S3)
    cluster.converge()
    cluster.fail(
        64, make.verdict("BadInput", "spec.model.uri: s3://models/support/v1 has no SHA256SUMS", hint="Name one.")
    )
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", "BadInput")
    assert cluster.message("Stalled") == "spec.model.uri: s3://models/support/v1 has no SHA256SUMS Name one."
    assert cluster.status["phase"] == "Failed"
    assert kinds(cluster).count("Job") == 1, "until Kubernetes removes that Job"
    cluster.remove_job(Ref("batch/v1", "Job", cluster.job()["metadata"]["name"]))
    cluster.pods.clear()
    cluster.converge()
    assert kinds(cluster).count("Job") == 2


def test_an_inspection_that_may_succeed_later_does_not_stall() -> None:
    cluster = published(AT_S3)
    cluster.converge()
    cluster.fail(70, make.verdict("Crashed", "Unreachable: the store does not answer"))
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "InspectionFailed")
    assert "does not answer" in cluster.message("Reconciling")


def test_a_pod_without_its_secret_says_so() -> None:
    cluster = published(AT_S3)
    cluster.converge()
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "store" not found'}}
    cluster.start(waiting, phase="Pending")
    cluster.converge()
    assert cluster.condition("Reconciling") == ("True", "CreateContainerConfigError")
    assert 'secret "store" not found' in cluster.message("Reconciling")


def test_another_model_replaces_the_one_that_is_served_once_it_is_known() -> None:
    cluster = served(AT_S3)
    cluster.edit(model={**AT_S3, "uri": "s3://models/support/v2"})
    cluster.converge()
    assert kinds(cluster).count("Job") == 2
    assert cluster.status["stable"]["digest"] == DIGEST
    assert fetch_of(pod(cluster)["initContainers"][0]).artifact.uri == "s3://models/support/v1"  # type: ignore[union-attr]
    assert cluster.message("Progressing").endswith("still serving aaaaaaaa")
    cluster.complete(seen(OTHER))
    cluster.converge()
    assert cluster.status["candidate"]["digest"] == OTHER
    assert fetch_of(pod(cluster)["initContainers"][0]).artifact.uri == "s3://models/support/v2"  # type: ignore[union-attr]


def test_the_inspection_is_not_repeated_when_its_job_is_removed() -> None:
    cluster = served(AT_S3)
    cluster.remove_job(Ref("batch/v1", "Job", cluster.job()["metadata"]["name"]))
    cluster.pods.clear()
    writes = cluster.writes
    cluster.converge()
    assert cluster.writes == writes


@pytest.mark.parametrize(
    ("cls", "reason", "expected"),
    [
        ("BadInput", "ArtifactChanged", ("Stalled", "ArtifactChanged")),
        ("BadInput", None, ("Stalled", "BadInput")),
        ("Crashed", None, ("Reconciling", "Crashed")),
    ],
)
def test_a_server_that_cannot_fetch_is_reported_while_the_old_one_serves_on(
    cls: str, reason: str | None, expected: tuple[str, str]
) -> None:
    cluster = served(AT_S3)
    cluster.edit(drainSeconds=5)
    cluster.converge()
    live = deployment(cluster)
    live["status"] |= {"observedGeneration": live["metadata"]["generation"], "replicas": 2, "updatedReplicas": 1}
    words = "spec.model.uri: 'model.safetensors' has other content than SHA256SUMS says"
    verdict = make.verdict(cls, words, reason=reason)
    state = make.exited(64 if cls == "BadInput" else 70, verdict)
    cluster.pods["server"] = {
        "metadata": {"name": "server", "uid": "server", "labels": live["spec"]["template"]["metadata"]["labels"]},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Pending", "initContainerStatuses": [{"name": "fetch", "state": state}]},
    }
    cluster.converge()
    kind, shown = expected
    assert cluster.condition(kind) == ("True", shown)
    assert "'model.safetensors' has other content" in cluster.message(kind)
    assert cluster.condition("Available") == ("True", "ServersReady")


def test_a_claim_of_a_job_is_given_back_when_a_published_model_replaces_it() -> None:
    cluster = FakeCluster(make.modeldeployment()).add(make.complete_job(DIGEST), make.artifact_claim())
    cluster.converge()
    roll_out(cluster)
    cluster.converge()
    cluster.edit(model=AT_S3)
    cluster.converge()
    cluster.complete(seen(OTHER))
    cluster.converge()
    roll_out(cluster)
    cluster.converge()
    claim = cluster.objects[Ref("v1", "PersistentVolumeClaim", "job-output")]
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == ["job-uid"]
    assert cluster.status["stable"]["digest"] == OTHER
    assert "job" not in cluster.status["stable"]


def test_an_image_that_the_administrator_does_not_list_is_refused() -> None:
    from hone.core.allowlists import AllowLists
    from hone.core.settings import Settings

    cluster = published({**AT_S3, "base": {"image": {"reference": f"evil.example.com/b@{OTHER}"}}})
    cluster.settings = Settings(allow_lists=AllowLists(images=("registry.example.com/*",)))
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", "NotAllowed")
    assert cluster.message("Stalled").startswith("spec.model.base.image.reference")
    assert kinds(cluster) == []
