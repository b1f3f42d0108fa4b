"""Specs that only the code rejects, names that are taken, writes that the API server refuses."""

from typing import Any

import pytest

from hone.core.children import ref_of
from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster
from tests.unit.core.runs import preparing, results, training


def test_a_spec_that_only_the_code_rejects_stalls() -> None:
    cluster = finetunejob_cluster(objective="Telepathy")
    plan = cluster.converge()
    assert cluster.condition("Stalled") == ("True", "InvalidSpec")
    assert cluster.message("Stalled").startswith("spec.objective: ")
    assert plan.requeue_after is None
    assert cluster.reasons() == ["InvalidSpec"]
    cluster.edit(objective="SFT").converge()
    assert cluster.jobs() == ["prepare-1"]
    assert cluster.condition("Stalled")[0] == "False"


@pytest.mark.parametrize("kind", ["Job", "ConfigMap", "PersistentVolumeClaim", "Service"])
def test_a_foreign_object_with_a_childs_name_is_left_alone(kind: str) -> None:
    spec: dict[str, Any] = {"compute": {"gpusPerNode": 0, "nodes": 2}}
    known = training(**spec)
    name = next(ref for ref in known.created if ref.kind == kind)
    cluster = finetunejob_cluster(**spec)
    foreign = {"apiVersion": name.api_version, "kind": kind, "metadata": {"name": name.name, "uid": "x"}, "spec": {}}
    cluster.add(foreign)
    plan = cluster.converge()
    assert cluster.condition("Stalled") == ("True", "NameConflict")
    assert name.name in cluster.message("Stalled")
    assert cluster.created == []
    assert plan.requeue_after == 60
    assert cluster.reasons() == ["NameConflict"]
    del cluster.objects[name]
    cluster.converge()
    assert cluster.jobs() == ["prepare-1"]


def refused(cluster: FakeCluster, kind: str = "Job") -> None:
    """Three reconciles, a minute apart, of a job of whose next Plan the API server refuses an object."""
    cluster.refuse = (kind,)
    for _ in range(3):
        cluster.later(60).reconcile()
    assert cluster.condition("Stalled") == ("True", "Refused")
    assert "exceeded quota" in cluster.message("Stalled")
    assert cluster.reasons().count("Refused") == 1
    cluster.refuse = ()


def test_a_refused_write_is_told_in_the_servers_words() -> None:
    cluster = finetunejob_cluster()
    refused(cluster)
    assert "Job" in cluster.message("Stalled")
    assert (cluster.status["phase"], cluster.status["attempts"]) == ("Pending", [])
    writes = cluster.writes
    cluster.refuse = ("Job",)
    cluster.reconcile()
    assert cluster.writes == writes + 1, "the Job's creation, and no status"


def test_what_was_refused_costs_neither_an_attempt_nor_a_retry() -> None:
    cluster = training(retry={"limit": 1})
    cluster.fail(70, make.verdict("Crashed", "boom"))
    refused(cluster)
    cluster.converge()
    assert cluster.jobs()[-1] == "train-2"
    assert results(cluster)[1:] == [("train", 1, "Failed"), ("train", 2, "Running")]
    assert (cluster.status["failures"], cluster.status["usage"]["retries"]) == ({"train.Crashed": 1}, 1)
    assert cluster.condition("Stalled")[0] == "False"


def test_how_an_attempt_ended_is_written_down_though_the_next_one_is_refused() -> None:
    cluster = training()
    cluster.fail(70, make.verdict("Crashed", "boom", step=41))
    refused(cluster)
    cluster.pods.clear()
    cluster.converge()
    failure = cluster.status["attempts"][1]["failure"]
    assert (failure["message"], failure["step"]) == ("boom", 41)
    assert cluster.reasons().count("Crashed") == 1


def test_a_run_whose_first_trainer_is_refused_has_not_started() -> None:
    cluster = preparing()
    cluster.complete(make.prepared())
    refused(cluster)
    assert "startTime" not in cluster.status
    assert results(cluster) == [("prepare", 1, "Succeeded")]
    cluster.later(60).converge()
    assert cluster.status["startTime"] == rfc3339(cluster.now)


def test_a_run_that_started_unseen_stays_started_though_the_next_attempt_is_refused() -> None:
    cluster = preparing()
    cluster.complete(make.prepared())
    before = cluster.status
    cluster.converge()
    cluster.fail(70)
    cluster.resource["status"] = before  # the operator died before it could write down that it made the Job
    refused(cluster)
    assert results(cluster) == [("prepare", 1, "Succeeded"), ("train", 1, "Failed")]
    assert cluster.status["startTime"]


def test_a_failed_job_that_was_mended_is_tried_again_after_a_refusal() -> None:
    cluster = preparing()
    cluster.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    cluster.converge()
    cluster.edit(dataset={**cluster.resource["spec"]["dataset"], "minSamples": 10})
    refused(cluster)
    assert cluster.condition("Finished")[0] == cluster.condition("Failed")[0] == "False"
    cluster.edit(dataset={**cluster.resource["spec"]["dataset"], "minSamples": 20}).converge()
    assert cluster.jobs() == ["prepare-1", "prepare-2"]
    config = next(obj for ref, obj in cluster.objects.items() if ref.name == cluster.status["runConfig"])
    assert '"minSamples":20' in config["data"]["run.json"], "what is prepared is the spec of now"


def test_a_failed_job_that_was_mended_waits_for_a_name_that_is_taken() -> None:
    cluster = preparing()
    cluster.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    cluster.converge()
    name = f"{cluster.job()['metadata']['name'][:-1]}2"
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "uid": "x"}, "spec": {}}
    cluster.add(foreign).edit(dataset={**cluster.resource["spec"]["dataset"], "minSamples": 10})
    assert cluster.converge().requeue_after == 60
    assert cluster.condition("Stalled") == ("True", "NameConflict")
    del cluster.objects[ref_of(foreign)]
    cluster.converge()
    assert cluster.jobs() == ["prepare-1", "prepare-2"]


def reading_another() -> FakeCluster:
    """A job that prepares the model of the job `job`, and owns its claim as well."""
    cluster = finetunejob_cluster(model={"jobRef": {"name": "job"}})
    cluster.add(make.complete_job("sha256:1"), make.artifact_claim()).converge()
    assert [owner["uid"] for owner in owners(cluster)] == ["job-uid", cluster.resource["metadata"]["uid"]]
    return cluster


def owners(cluster: FakeCluster) -> list[dict[str, Any]]:
    """The owner references of the other job's claim."""
    claim = cluster.objects[ref_of(make.artifact_claim())]
    return list(claim["metadata"]["ownerReferences"])


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_job_has_not_ended_while_it_may_not_give_back_what_it_read(end: str) -> None:
    cluster = reading_another()
    if end == "Failed":
        cluster.fail(64, make.verdict("BadInput"))
    else:
        for result in (make.prepared(), make.trained()):
            cluster.complete(result)
            cluster.converge()
        cluster.complete(make.finished())
    refused(cluster, "PersistentVolumeClaim")
    assert cluster.condition("Finished")[0] == "False" and "completionTime" not in cluster.status
    assert cluster.status["phase"] == ("Preparing" if end == "Failed" else "Finishing")
    cluster.pods.clear()
    cluster.converge()
    assert cluster.condition("Finished") == ("True", "Succeeded" if end == "Succeeded" else "Failed")
    assert [owner["uid"] for owner in owners(cluster)] == ["job-uid"]
    assert cluster.condition("Stalled")[0] == ("True" if end == "Failed" else "False")
    assert cluster.reasons().count("Succeeded" if end == "Succeeded" else "FailedBadInput") == 1


def test_a_model_that_an_edit_dropped_stays_known_until_it_may_be_given_back() -> None:
    cluster = reading_another()
    cluster.edit(model={"claim": {"name": "base-models", "path": "tiny"}}).reconcile()
    refused(cluster, "PersistentVolumeClaim")
    assert cluster.status["models"]["model"]["claim"] == "job-output"
    cluster.converge()
    assert [owner["uid"] for owner in owners(cluster)] == ["job-uid"] and "models" not in cluster.status
    assert cluster.jobs() == ["prepare-1", "prepare-2"]
