"""A ModelDeployment with a stable revision and a new one, in a cluster in memory whose pods are played by hand."""

from typing import Any

from hone.core.names import REVISION_LABEL, UID_LABEL
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import OTHER, served

CANARY = {"strategy": "Canary", "steps": [{"weight": 50, "holdSeconds": 60}]}
CRASH = "CUDA error: no kernel image"


def deployments(cluster: FakeCluster) -> dict[str, dict[str, Any]]:
    """The Deployments by role."""
    live = [obj for ref, obj in cluster.objects.items() if ref.kind == "Deployment"]
    return {obj["metadata"]["labels"]["hone.dev/role"]: obj for obj in live}


def up(cluster: FakeCluster, role: str) -> None:
    """All pods of a role are of its newest revision and answer."""
    live = deployments(cluster)[role]
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        **dict.fromkeys(counts, live["spec"].get("replicas", 1)),
    }
    cluster.pods.clear()


def pod(cluster: FakeCluster, role: str, **status: Any) -> None:
    """A pod of a role's newest revision."""
    labels = deployments(cluster)[role]["spec"]["template"]["metadata"]["labels"]
    meta = {"name": f"{role}-x", "uid": f"uid-{role}-{len(cluster.pods)}", "labels": labels}
    assert labels[UID_LABEL] and labels[REVISION_LABEL]
    cluster.pods[f"{role}-{len(cluster.pods)}"] = {"metadata": meta, "status": {"phase": "Running", **status}}


def crash(cluster: FakeCluster, role: str, restarts: int = 3) -> None:
    """A role's server ends again and again."""
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": CRASH}}
    container = {"name": "server", "ready": False, "restartCount": restarts, "lastState": last}
    pod(cluster, role, containerStatuses=[container])


def unschedulable(cluster: FakeCluster, role: str) -> None:
    """No node has room for a role's pod."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod(cluster, role, phase="Pending", conditions=[{**condition, "message": "0/1 nodes: Insufficient nvidia.com/gpu"}])


def new_artifact(cluster: FakeCluster, digest: str = OTHER, claim: str = "job2-output", uid: str = "job-uid-2") -> None:
    """The job is created again under its name and has ended with another artifact."""
    cluster.add(make.complete_job(digest, uid=uid, claim=claim), make.artifact_claim(claim, job_uid=uid))
    cluster.converge()


def trying(rollout: dict[str, Any] | None = None, **spec: Any) -> FakeCluster:
    """A cluster in which a new revision is tried next to the stable one."""
    cluster = served(**{"rollout": rollout or CANARY, "replicas": 1, **spec})
    new_artifact(cluster)
    return cluster


def through(cluster: FakeCluster, *roles: str) -> FakeCluster:
    """These roles' pods come up one after the other, and what follows from each happens."""
    for role in roles:
        up(cluster, role)
        cluster.converge()
    return cluster


def selector(cluster: FakeCluster) -> dict[str, str]:
    """The pods that the endpoint's Service selects."""
    name = cluster.subject().service.name  # type: ignore[attr-defined]
    return dict(cluster.objects[Ref("v1", "Service", name)]["spec"]["selector"])


def records(cluster: FakeCluster) -> set[str]:
    """The revisions that have ControllerRevisions."""
    return {
        obj["metadata"]["labels"][REVISION_LABEL]
        for ref, obj in cluster.objects.items()
        if ref.kind == "ControllerRevision"
    }
