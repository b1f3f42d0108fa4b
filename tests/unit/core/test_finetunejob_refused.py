"""Specs that only the code rejects, names that are taken, writes that the API server refuses."""

from typing import Any

import pytest

from hone.core.kinds import KINDS
from tests.unit.core.runs import training
from tests.unit.core.world import finetunejob_world

JOB = KINDS["FineTuneJob"]


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


def test_a_refused_write_is_told_in_the_servers_words() -> None:
    world = finetunejob_world()
    plan = JOB.refused(world.resource, "Job/x", "exceeded quota: pods", world.now)
    world.execute(plan)
    assert world.condition("Stalled") == ("True", "Refused")
    assert "Job/x" in world.message("Stalled") and "exceeded quota" in world.message("Stalled")
    assert JOB.refused(world.resource, "Job/x", "exceeded quota: pods", world.now).status is None
