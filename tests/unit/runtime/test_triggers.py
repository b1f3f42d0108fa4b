"""Which keys an event adds to which queue."""

from dataclasses import replace

import pytest

from hone.api import API_VERSION
from hone.core.kinds import KINDS
from hone.core.names import OWNER_ANNOTATION
from hone.core.observed import Object
from hone.runtime.controller import Key
from hone.runtime.evidence import EvidenceCache
from hone.runtime.triggers import Triggers
from tests.unit.runtime.support import pod


class Woken:
    """Triggers whose queue is a list."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self.evidence = EvidenceCache()
        self.triggers = Triggers(KINDS, self._add, self.evidence)

    def _add(self, kind: str, key: Key) -> None:
        self.keys.append((kind, key.name))

    def by(self, event_type: str | None, obj: Object) -> list[tuple[str, str]]:
        """The keys that one event adds."""
        self.keys = []
        self.triggers.saw(event_type, obj)
        return self.keys


def resource(kind: str, name: str, **spec: object) -> Object:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-of-{name}", "generation": 1}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def job(name: str) -> Object:
    return resource("FineTuneJob", name)


def serving(name: str, job_name: str) -> Object:
    return resource("ModelDeployment", name, model={"jobRef": {"name": job_name}})


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.mark.parametrize("event_type", [None, "ADDED", "MODIFIED", "DELETED"])
def test_a_resource_wakes_itself(woken: Woken, event_type: str | None) -> None:
    assert woken.by(event_type, job("a")) == [("FineTuneJob", "a")]


def test_a_child_wakes_its_owner(woken: Woken) -> None:
    assert woken.by("MODIFIED", pod("p")) == [("FineTuneJob", "sft")]


def test_a_child_of_nobody_we_know_wakes_nobody(woken: Woken) -> None:
    stray = pod("p", annotations={})
    other = pod("q", annotations={OWNER_ANNOTATION: "TrainJob/x"})
    assert woken.by("MODIFIED", stray) == [] and woken.by("MODIFIED", other) == []


def test_a_job_wakes_the_deployments_that_follow_it(woken: Woken) -> None:
    woken.by(None, serving("served", "a"))
    woken.by(None, serving("other", "b"))
    assert woken.by("MODIFIED", job("a")) == [("FineTuneJob", "a"), ("ModelDeployment", "served")]


def test_a_job_of_another_namespace_wakes_nobody(woken: Woken) -> None:
    woken.by(None, serving("served", "a"))
    elsewhere = job("a")
    elsewhere["metadata"]["namespace"] = "elsewhere"
    assert woken.by("MODIFIED", elsewhere) == [("FineTuneJob", "a")]


def test_a_deployment_that_follows_another_job_now_is_not_woken_by_the_old_one(woken: Woken) -> None:
    woken.by(None, serving("served", "a"))
    woken.by("MODIFIED", serving("served", "b"))
    assert woken.by("MODIFIED", job("a")) == [("FineTuneJob", "a")]
    assert ("ModelDeployment", "served") in woken.by("MODIFIED", job("b"))


def test_a_deleted_deployment_is_not_woken(woken: Woken) -> None:
    woken.by(None, serving("served", "a"))
    woken.by("DELETED", serving("served", "a"))
    assert woken.by("MODIFIED", job("a")) == [("FineTuneJob", "a")]


def test_a_pod_that_ends_is_kept_as_evidence(woken: Woken) -> None:
    woken.by("MODIFIED", pod("p", phase="Failed"))
    assert [entry.raw["metadata"]["uid"] for entry in woken.evidence.merge("job-uid", [])] == ["p"]


def test_a_kind_of_our_name_in_another_group_is_not_ours(woken: Woken) -> None:
    foreign = replace_api(job("a"), "example.com/v1")
    assert woken.by("MODIFIED", foreign) == []


def replace_api(obj: Object, api_version: str) -> Object:
    return {**obj, "apiVersion": api_version}


def test_the_table_names_what_each_kind_follows() -> None:
    deployment = KINDS["ModelDeployment"]
    assert [ref.name for ref in deployment.follows(serving("served", "a"))] == ["a"]
    assert replace(deployment).follows(job("a")) == ()
