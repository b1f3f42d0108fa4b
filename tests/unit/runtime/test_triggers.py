"""Which keys an event adds to which queue."""

from dataclasses import replace

import pytest

from hone.api import API_VERSION
from hone.core.kinds import KINDS
from hone.core.names import OWNER_ANNOTATION
from hone.core.observed import Object, Ref
from hone.runtime.controller import Key
from hone.runtime.evidence import EvidenceCache
from hone.runtime.index import Index
from hone.runtime.triggers import Triggers
from tests.unit.runtime.support import pod


class Woken:
    """Triggers whose queue is a list."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self.listed = False
        self.evidence, self.index = EvidenceCache(), Index()
        self.triggers = Triggers(KINDS, self._add, self.index, self.evidence, frozenset({"ConfigMap"}))

    def _add(self, kind: str, key: Key, listed: bool) -> None:
        self.listed = listed
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
    assert woken.listed == (event_type is None)


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


def test_a_deleted_pod_is_kept_as_evidence(woken: Woken) -> None:
    woken.by("MODIFIED", pod("p", phase="Failed"))
    assert len(woken.evidence) == 0, "it is in the index"
    woken.by("DELETED", pod("p", phase="Failed"))
    assert [entry.raw["metadata"]["uid"] for entry in woken.evidence.merge("ns", "job-uid", [])] == ["p"]
    assert woken.index.pods("ns", "job-uid") == []


@pytest.mark.parametrize(("phase", "count"), [("Failed", 1), ("Running", 0)])
def test_a_pod_whose_deletion_was_missed_is_evidence_only_if_it_was_ending(
    woken: Woken, phase: str, count: int
) -> None:
    woken.triggers.vanished(pod("p", phase=phase))
    assert len(woken.evidence) == count
    assert woken.keys == [("FineTuneJob", "sft")]


def test_a_child_that_is_as_it_was_known_wakes_nobody(woken: Woken) -> None:
    woken.by("ADDED", pod("p", resourceVersion="1"))
    assert woken.by("MODIFIED", pod("p", resourceVersion="2")) == []
    assert woken.by("MODIFIED", pod("p", phase="Failed", resourceVersion="3")) == [("FineTuneJob", "sft")]
    assert woken.by("MODIFIED", pod("p", resourceVersion="2")) == [], "an older state"
    assert woken.by("DELETED", pod("p", resourceVersion="4")) == [("FineTuneJob", "sft")]


def test_our_own_status_write_wakes_its_resource_once_more(woken: Woken) -> None:
    written = job("a")
    woken.index.put(written)
    assert woken.by("MODIFIED", written) == [("FineTuneJob", "a")]


def test_children_that_hardly_change_are_indexed_and_wake_nobody(woken: Woken) -> None:
    config = {**pod("c"), "kind": "ConfigMap"}
    assert woken.by("ADDED", config) == []
    assert woken.index.get("ns", Ref("v1", "ConfigMap", "c")) is not None


def test_a_kind_of_our_name_in_another_group_is_not_ours(woken: Woken) -> None:
    foreign = replace_api(job("a"), "example.com/v1")
    assert woken.by("MODIFIED", foreign) == []


def replace_api(obj: Object, api_version: str) -> Object:
    return {**obj, "apiVersion": api_version}


def test_the_table_names_what_each_kind_follows() -> None:
    deployment = KINDS["ModelDeployment"]
    assert [ref.name for ref in deployment.follows(serving("served", "a"))] == ["a"]
    assert replace(deployment).follows(job("a")) == ()
