"""The life of a FineTuneJob from its creation to its end, with the operator dying at every write of it."""

import itertools
import re

import pytest

from hone.core.finetunejob.resources.jobs import config_of
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, World, finetunejob_world

LIFE = ["prepare-1", "train-1", "finish-1"]
MODEL = Ref("v1", "PersistentVolumeClaim", "base-models")


def live(world: World) -> None:
    """Play the cluster until the job has ended; every step goes well."""
    for _ in range(40):
        try:
            world.settle()
        except Crash:
            continue
        if world.status.get("phase") in ("Succeeded", "Failed"):
            return
        step = world.job()["metadata"]["labels"]["hone.dev/step"]
        world.complete({"prepare": make.prepared(), "train": make.trained(), "finish": make.finished()}[step])
        world.later(60)
    raise AssertionError(f"no end: {world.status}")


def test_a_whole_life_is_one_job_for_each_step() -> None:
    world = finetunejob_world()
    live(world)
    assert world.jobs() == LIFE
    assert world.status["phase"] == "Succeeded"
    assert (world.status["score"], world.status["improvement"]) == ("0.91", "+0.62 [0.55, 0.69]")
    assert world.status["artifact"]["digest"] == "sha256:a57e"
    assert world.condition("Finished") == ("True", "Succeeded")
    assert world.condition("Ready") == ("True", "Succeeded")
    assert world.condition("Promotable") == ("True", "NoGate")
    assert world.reasons() == [
        "PrepareStarted",
        "PrepareSucceeded",
        "TrainStarted",
        "TrainSucceeded",
        "FinishStarted",
        "FinishSucceeded",
        "Succeeded",
    ]


def test_the_operator_may_die_at_any_write() -> None:
    whole = finetunejob_world()
    live(whole)
    for crash_at in range(1, whole.writes + 1):
        world = finetunejob_world()
        world.crash_at = crash_at
        live(world)
        assert world.jobs() == LIFE, f"crash at write {crash_at}"
        assert [len(list(group)) for _, group in itertools.groupby(sorted(world.made))] == [1] * len(world.made)
        assert world.status["phase"] == "Succeeded"
        assert [a["result"] for a in world.status["attempts"]] == ["Succeeded"] * 3


def edited_before_its_start(failed: bool) -> World:
    """A job that was prepared, or failed in it, and then was given another spec."""
    world = finetunejob_world()
    world.settle()
    if failed:
        world.fail(64, make.verdict("BadInput"))
    else:
        world.complete(make.prepared())
        world.objects.pop(MODEL)  # keeps training from its start
    world.settle()
    world.add(make.claim("base-models"))
    world.pods.clear()
    return world.edit(hyperparameters={"epochs": 2.0})


@pytest.mark.parametrize("failed", [False, True], ids=["prepared", "failed"])
def test_the_operator_may_die_at_any_write_after_an_edit(failed: bool) -> None:
    whole = edited_before_its_start(failed)
    before = whole.writes
    live(whole)
    for crash_at in range(before + 1, whole.writes + 1):
        world = edited_before_its_start(failed)
        world.crash_at = crash_at
        live(world)
        assert world.jobs() == ["prepare-1", "prepare-2", "train-1", "finish-1"], f"crash at write {crash_at}"
        assert world.status["phase"] == "Succeeded"
        assert world.status["failures"] == {}
        configs = {config_of(world.objects[ref]) for ref in world.made if ref.kind == "Job"}
        assert len(configs) == 2, "all steps after the edit are told the same"


def test_an_edit_that_overtakes_the_start_is_prepared_anew() -> None:
    world = finetunejob_world()
    world.settle()
    world.complete(make.prepared())
    world.crash_at = world.writes + 2
    with pytest.raises(Crash):
        world.settle()
    assert world.jobs() == ["prepare-1", "train-1"]
    assert "startTime" not in world.status
    world.start()
    world.edit(hyperparameters={"epochs": 2.0}).settle()
    assert [a["result"] for a in world.status["attempts"]] == ["Succeeded", "Replaced"]
    assert "startTime" not in world.status
    world.drop_deleted_pods()
    world.settle()
    world.complete(make.prepared())
    world.settle()
    assert world.jobs() == ["prepare-1", "train-1", "prepare-2", "train-2"]
    assert config_of(world.job()) == world.status["runConfig"]


def test_a_finished_job_costs_nothing() -> None:
    world = finetunejob_world()
    live(world)
    gets, writes = world.gets, world.writes
    plan = world.look()
    assert (plan.create, plan.apply, plan.delete, plan.status, plan.requeue_after) == ((), (), (), None, None)
    assert (world.gets, world.writes) == (gets, writes)


def test_while_an_attempt_runs_only_its_job_is_read() -> None:
    world = finetunejob_world()
    world.settle()
    world.start()
    world.settle()
    gets = world.gets
    world.look()
    assert world.gets == gets + 1


def test_a_resource_being_deleted_is_left_alone() -> None:
    world = finetunejob_world()
    world.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.look().create == ()
    assert world.gets == 0


@pytest.mark.parametrize("name", ["3b.v1-sft", "a" * 253, "x", "llama-3.1", "trailing-" + "y" * 40 + ".z"])
def test_any_legal_name_gives_legal_children(name: str) -> None:
    resource = make.finetunejob(name=name, compute={"gpusPerNode": 0, "nodes": 2})
    world = finetunejob_world(resource)
    live(world)
    for ref in world.made:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", ref.name), ref
        assert len(ref.name) + (len("-1023") if ref.kind == "Job" else 0) <= 63, ref


def test_a_job_made_again_under_its_name_starts_afresh() -> None:
    first, second = (finetunejob_world(make.finetunejob(uid=uid)) for uid in ("1", "2"))
    live(first)
    live(second)
    assert not set(first.made) & set(second.made)
