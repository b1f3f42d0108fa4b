"""Specs that only the code rejects, names that are taken, writes that the API server refuses."""

from typing import Any

import pytest

from hone.core.children import ref_of
from hone.core.times import rfc3339
from tests.unit.core import make
from tests.unit.core.fake_cluster import World, finetunejob_world
from tests.unit.core.runs import preparing, results, training


def test_a_spec_that_only_the_code_rejects_stalls() -> None:
    world = finetunejob_world(objective="Telepathy")
    plan = world.settle()
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.message("Stalled").startswith("spec.objective: ")
    assert plan.requeue_after is None
    assert world.reasons() == ["InvalidSpec"]
    world.edit(objective="SFT").settle()
    assert world.jobs() == ["prepare-1"]
    assert world.condition("Stalled")[0] == "False"


@pytest.mark.parametrize("kind", ["Job", "ConfigMap", "PersistentVolumeClaim", "Service"])
def test_a_foreign_object_with_a_childs_name_is_left_alone(kind: str) -> None:
    spec: dict[str, Any] = {"compute": {"gpusPerNode": 0, "nodes": 2}}
    known = training(**spec)
    name = next(ref for ref in known.made if ref.kind == kind)
    world = finetunejob_world(**spec)
    foreign = {"apiVersion": name.api_version, "kind": kind, "metadata": {"name": name.name, "uid": "x"}, "spec": {}}
    world.add(foreign)
    plan = world.settle()
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert name.name in world.message("Stalled")
    assert world.made == []
    assert plan.requeue_after == 60
    assert world.reasons() == ["NameConflict"]
    del world.objects[name]
    world.settle()
    assert world.jobs() == ["prepare-1"]


def refused(world: World, kind: str = "Job") -> None:
    """Three looks, a minute apart, at a job of whose next Plan the API server refuses an object."""
    world.refuse = (kind,)
    for _ in range(3):
        world.later(60).look()
    assert world.condition("Stalled") == ("True", "Refused")
    assert "exceeded quota" in world.message("Stalled")
    assert world.reasons().count("Refused") == 1
    world.refuse = ()


def test_a_refused_write_is_told_in_the_servers_words() -> None:
    world = finetunejob_world()
    refused(world)
    assert "Job" in world.message("Stalled")
    assert (world.status["phase"], world.status["attempts"]) == ("Pending", [])
    writes = world.writes
    world.refuse = ("Job",)
    world.look()
    assert world.writes == writes + 1, "the Job's creation, and no status"


def test_what_was_refused_costs_neither_an_attempt_nor_a_retry() -> None:
    world = training(retry={"limit": 1})
    world.fail(70, make.verdict("Crashed", "boom"))
    refused(world)
    world.settle()
    assert world.jobs()[-1] == "train-2"
    assert results(world)[1:] == [("train", 1, "Failed"), ("train", 2, "Running")]
    assert (world.status["failures"], world.status["usage"]["retries"]) == ({"train.Crashed": 1}, 1)
    assert world.condition("Stalled")[0] == "False"


def test_how_an_attempt_ended_is_written_down_though_the_next_one_is_refused() -> None:
    world = training()
    world.fail(70, make.verdict("Crashed", "boom", step=41))
    refused(world)
    world.pods.clear()
    world.settle()
    failure = world.status["attempts"][1]["failure"]
    assert (failure["message"], failure["step"]) == ("boom", 41)
    assert world.reasons().count("Crashed") == 1


def test_a_run_whose_first_trainer_is_refused_has_not_started() -> None:
    world = preparing()
    world.complete(make.prepared())
    refused(world)
    assert "startTime" not in world.status
    assert results(world) == [("prepare", 1, "Succeeded")]
    world.later(60).settle()
    assert world.status["startTime"] == rfc3339(world.now)


def test_a_run_that_started_unseen_stays_started_though_the_next_attempt_is_refused() -> None:
    world = preparing()
    world.complete(make.prepared())
    before = world.status
    world.settle()
    world.fail(70)
    world.resource["status"] = before  # the operator died before it could write down that it made the Job
    refused(world)
    assert results(world) == [("prepare", 1, "Succeeded"), ("train", 1, "Failed")]
    assert world.status["startTime"]


def test_a_failed_job_that_was_mended_is_tried_again_after_a_refusal() -> None:
    world = preparing()
    world.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    world.settle()
    world.edit(dataset={**world.resource["spec"]["dataset"], "minSamples": 10})
    refused(world)
    assert world.condition("Finished")[0] == world.condition("Failed")[0] == "False"
    world.edit(dataset={**world.resource["spec"]["dataset"], "minSamples": 20}).settle()
    assert world.jobs() == ["prepare-1", "prepare-2"]
    made = next(obj for ref, obj in world.objects.items() if ref.name == world.status["runConfig"])
    assert '"minSamples":20' in made["data"]["run.json"], "what is prepared is the spec of now"


def test_a_failed_job_that_was_mended_waits_for_a_name_that_is_taken() -> None:
    world = preparing()
    world.fail(64, make.verdict("BadInput", "spec.dataset.minSamples: 40 rows are too few"))
    world.settle()
    name = f"{world.job()['metadata']['name'][:-1]}2"
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "uid": "x"}, "spec": {}}
    world.add(foreign).edit(dataset={**world.resource["spec"]["dataset"], "minSamples": 10})
    assert world.settle().requeue_after == 60
    assert world.condition("Stalled") == ("True", "NameConflict")
    del world.objects[ref_of(foreign)]
    world.settle()
    assert world.jobs() == ["prepare-1", "prepare-2"]


def reading_another() -> World:
    """A job that prepares the model of the job `job`, and owns its claim as well."""
    world = finetunejob_world(model={"jobRef": {"name": "job"}})
    world.add(make.complete_job("sha256:1"), make.artifact_claim()).settle()
    assert [owner["uid"] for owner in owners(world)] == ["job-uid", world.resource["metadata"]["uid"]]
    return world


def owners(world: World) -> list[dict[str, Any]]:
    """The owner references of the other job's claim."""
    claim = world.objects[ref_of(make.artifact_claim())]
    return list(claim["metadata"]["ownerReferences"])


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_job_has_not_ended_while_it_may_not_give_back_what_it_read(end: str) -> None:
    world = reading_another()
    if end == "Failed":
        world.fail(64, make.verdict("BadInput"))
    else:
        for result in (make.prepared(), make.trained()):
            world.complete(result)
            world.settle()
        world.complete(make.finished())
    refused(world, "PersistentVolumeClaim")
    assert world.condition("Finished")[0] == "False" and "completionTime" not in world.status
    assert world.status["phase"] == ("Preparing" if end == "Failed" else "Finishing")
    world.pods.clear()
    world.settle()
    assert world.condition("Finished") == ("True", "Succeeded" if end == "Succeeded" else "Failed")
    assert [owner["uid"] for owner in owners(world)] == ["job-uid"]
    assert world.condition("Stalled")[0] == ("True" if end == "Failed" else "False")
    assert world.reasons().count("FinishSucceeded" if end == "Succeeded" else "FailedBadInput") == 1


def test_a_model_that_an_edit_dropped_stays_known_until_it_may_be_given_back() -> None:
    world = reading_another()
    world.edit(model={"claim": {"name": "base-models", "path": "tiny"}}).look()
    refused(world, "PersistentVolumeClaim")
    assert world.status["models"]["model"]["claim"] == "job-output"
    world.settle()
    assert [owner["uid"] for owner in owners(world)] == ["job-uid"] and "models" not in world.status
    assert world.jobs() == ["prepare-1", "prepare-2"]
