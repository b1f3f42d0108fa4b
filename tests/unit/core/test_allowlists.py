"""What the administrator does not allow makes no pod: the resource is Stalled, with a message that names the field."""

import copy
from typing import Any

import pytest

from hone.api.meta import PodSettings
from hone.core.allowlists import ANYTHING, NOT_ALLOWED, AllowLists, not_allowed
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster
from tests.unit.core.runs import training
from tests.unit.core.test_modeldeployment_lifecycle import DIGEST, served

POD = "spec.compute.pod"
STRICT = Settings(allow_lists=AllowLists(images=()))


def refused(lists: AllowLists, image: str | None = None, **pod: Any) -> str | None:
    """The message for settings of pods, or None where they are allowed."""
    resource = {"spec": {"compute": {"pod": pod}}}
    trouble = not_allowed(lists, resource, POD, PodSettings.from_dict(pod), {"spec.compute.image": image})
    assert trouble is None or trouble.reason == NOT_ALLOWED
    return trouble and trouble.message


TAINT: dict[str, Any] = {"key": "gpu", "operator": "Exists"}
CASES: dict[str, tuple[AllowLists, dict[str, Any], str]] = {
    "a priority class": (
        AllowLists(priority_classes=("low", "batch-*")), {"priorityClassName": "high"},
        "spec.compute.pod.priorityClassName: 'high' is not allowed in this cluster; use one of low, batch-*, "
        "or ask an administrator to extend admissionPolicies.users.priorityClasses",
    ),
    "a toleration": (
        AllowLists(tolerations=("gpu",)), {"tolerations": [TAINT, {**TAINT, "key": "control-plane"}]},
        "spec.compute.pod.tolerations[1].key: 'control-plane' is not allowed in this cluster; use one of gpu, "
        "or ask an administrator to extend admissionPolicies.users.tolerations",
    ),
    "a toleration of everything": (
        AllowLists(tolerations=("gpu", "team-*")), {"tolerations": [{"operator": "Exists"}]},
        "spec.compute.pod.tolerations[0].key: a toleration without a key, which tolerates every taint, is not allowed "
        "in this cluster; use one of gpu, team-*, or ask an administrator to extend "
        "admissionPolicies.users.tolerations",
    ),
    "an annotation": (
        AllowLists(annotations=()), {"annotations": {"a.example.com/b": "c"}},
        "spec.compute.pod.annotations: 'a.example.com/b' is not allowed in this cluster; remove it, "
        "or ask an administrator to extend admissionPolicies.users.annotations",
    ),
    "a scheduler": (
        AllowLists(schedulers=("default-scheduler",)), {"schedulerName": "mine"},
        "spec.compute.pod.schedulerName: 'mine' is not allowed in this cluster; use one of default-scheduler, "
        "or ask an administrator to extend admissionPolicies.users.schedulers",
    ),
}  # fmt: skip
ALLOWED: dict[str, tuple[AllowLists, dict[str, Any]]] = {
    "nothing": (AllowLists((), (), (), (), ()), {}),
    "a name": (AllowLists(priority_classes=("low",)), {"priorityClassName": "low"}),
    "a name that begins so": (AllowLists(priority_classes=("batch-*",)), {"priorityClassName": "batch-low"}),
    "a taint": (AllowLists(tolerations=("gpu",)), {"tolerations": [TAINT]}),
    "every taint": (AllowLists(tolerations=("gpu", "*")), {"tolerations": [{"operator": "Exists"}]}),
    "an annotation": (AllowLists(annotations=("a.example.com/*",)), {"annotations": {"a.example.com/b": "c"}}),
}


@pytest.mark.parametrize(("lists", "pod", "message"), CASES.values(), ids=CASES)
def test_what_is_not_in_a_list_is_refused_by_field(lists: AllowLists, pod: dict[str, Any], message: str) -> None:
    assert refused(lists, **pod) == message
    assert refused(ANYTHING, **pod) is None


@pytest.mark.parametrize(("lists", "pod"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_in_a_list_is_allowed(lists: AllowLists, pod: dict[str, Any]) -> None:
    assert refused(lists, **pod) is None


def test_images_are_compared_as_a_whole_or_by_their_beginning() -> None:
    lists = AllowLists(images=("registry.example.com/team/*", "trainer:1"))
    assert refused(lists) is None, "the operator's own image needs no entry"
    assert refused(lists, "trainer:1") is None
    assert refused(lists, "registry.example.com/team/trainer:2") is None
    for image in ("trainer:12", "registry.example.com/teams/x", "evil/registry.example.com/team/x"):
        assert f"spec.compute.image: {image!r} is not allowed" in (refused(lists, image) or "")


def test_a_priority_class_of_the_cluster_is_refused_whatever_the_lists_say() -> None:
    message = refused(AllowLists(priority_classes=("system-node-critical",)), priorityClassName="system-node-critical")
    assert message and message.startswith("spec.compute.pod.priorityClassName must not begin with 'system-'")


def test_a_job_that_is_not_allowed_makes_nothing_until_it_is() -> None:
    cluster = finetunejob_cluster(compute={"gpusPerNode": 0, "image": "mine"})
    cluster.settings = STRICT
    plan = cluster.converge()
    assert cluster.created == [] and plan.requeue_after is None
    assert cluster.condition("Stalled") == ("True", NOT_ALLOWED)
    assert cluster.message("Stalled").startswith("spec.compute.image: 'mine' is not allowed")
    assert cluster.status["phase"] == "Pending" and cluster.reasons() == [NOT_ALLOWED]
    cluster.edit(compute={"gpusPerNode": 0}).converge()
    assert cluster.jobs() == ["prepare-1"]


def test_a_step_that_was_begun_ends_and_the_next_one_waits() -> None:
    cluster = training(compute={"gpusPerNode": 0, "image": "mine"})
    cluster.settings = STRICT
    cluster.converge()
    assert cluster.condition("Reconciling")[0] == "True"
    cluster.complete(make.trained())
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", NOT_ALLOWED)
    assert [each["result"] for each in cluster.status["attempts"]] == ["Succeeded", "Succeeded"]


def test_a_server_that_is_not_allowed_is_not_made_and_one_that_runs_stays() -> None:
    refused_at_once = FakeCluster(make.modeldeployment(runtime={"image": "mine"}), settings=STRICT)
    refused_at_once.add(make.claim("base-models"), make.complete_job(DIGEST), make.artifact_claim()).converge()
    assert refused_at_once.created == []
    assert refused_at_once.condition("Stalled") == ("True", NOT_ALLOWED)
    assert refused_at_once.message("Stalled").startswith("spec.runtime.image: 'mine' is not allowed")
    running = served(runtime={"image": "mine"})
    before = copy.deepcopy(running.objects)
    running.settings = STRICT
    running.converge()
    assert running.objects == before
    assert running.condition("Stalled") == ("True", NOT_ALLOWED) and running.status["phase"] == "Available"
