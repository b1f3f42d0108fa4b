"""The evidence cache: which pods it keeps, for whom, and how many."""

import pytest

from hone.core.observed import Object
from hone.runtime.evidence import EvidenceCache, is_ending
from tests.unit.runtime.support import pod


def terminated(uid: str) -> Object:
    out = pod(uid)
    out["status"]["containerStatuses"] = [{"name": "main", "state": {"terminated": {"exitCode": 65}}}]
    return out


def uids(cache: EvidenceCache, owner: str = "job-uid", namespace: str = "ns") -> list[str]:
    return [entry.raw["metadata"]["uid"] for entry in cache.merge(namespace, owner, [])]


ENDING = {
    "being deleted": pod("p", deletionTimestamp="2026-01-01T00:00:00Z"),
    "failed": pod("p", phase="Failed"),
    "succeeded": pod("p", phase="Succeeded"),
    "on a lost node": pod("p", phase="Unknown"),
    "with an ended container": terminated("p"),
}


@pytest.mark.parametrize("case", ENDING)
def test_an_ending_pod_is_remembered_when_it_vanishes(case: str) -> None:
    cache = EvidenceCache()
    cache.saw_vanish(ENDING[case])
    (entry,) = cache.merge("ns", "job-uid", [])
    assert entry.gone
    assert entry.raw["status"] == ENDING[case]["status"]


def test_of_a_living_pod_that_vanishes_nobody_knows_how_it_ended() -> None:
    cache = EvidenceCache()
    cache.saw_vanish(pod("p"))
    assert uids(cache) == [] and not is_ending(pod("p"))


@pytest.mark.parametrize(("code", "ending"), [(0, False), (64, True)])
def test_a_pod_whose_init_container_succeeded_only_begins(code: int, ending: bool) -> None:
    server = pod("p")
    server["status"]["initContainerStatuses"] = [{"name": "verify", "state": {"terminated": {"exitCode": code}}}]
    assert is_ending(server) == ending


def test_a_pod_that_was_deleted_while_it_ran_is_remembered() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p"))
    assert uids(cache) == ["p"]


def test_what_exists_counts_more_than_what_is_remembered() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p", phase="Failed"))
    live = pod("p", phase="Failed", resourceVersion="2")
    (entry,) = cache.merge("ns", "job-uid", [live])
    assert not entry.gone and entry.raw is live


def test_each_resource_sees_only_its_own_pods() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p", owner_uid="one"))
    cache.saw_deleted(pod("q", owner_uid="two"))
    assert uids(cache, "two") == ["q"]


def test_a_pod_of_another_namespace_with_our_label_is_not_ours() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p", namespace="stranger", phase="Failed"))
    assert uids(cache) == []


def test_the_last_state_of_a_pod_is_kept() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p", deletionTimestamp="2026-01-01T00:00:00Z"))
    cache.saw_deleted(pod("p", phase="Failed"))
    (entry,) = cache.merge("ns", "job-uid", [])
    assert entry.raw["status"]["phase"] == "Failed"


def test_the_oldest_goes_when_a_namespace_is_full() -> None:
    cache = EvidenceCache(per_namespace=2)
    for uid in ("a", "b", "c"):
        cache.saw_deleted(pod(uid))
    assert uids(cache) == ["b", "c"]


def test_a_namespace_with_many_pods_pushes_out_its_own_and_no_others() -> None:
    cache = EvidenceCache(limit=5, per_namespace=4)
    cache.saw_deleted(pod("ours"))
    for number in range(100):
        cache.saw_deleted(pod(f"theirs-{number}", namespace="stranger"))
    cache.saw_deleted(pod("ours too"))
    assert uids(cache) == ["ours", "ours too"]
    assert len(cache) == 5


def test_a_deleted_resource_is_forgotten() -> None:
    cache = EvidenceCache()
    cache.saw_deleted(pod("p", owner_uid="one"))
    cache.saw_deleted(pod("q", owner_uid="two"))
    cache.forget("ns", "one")
    assert len(cache) == 1 and uids(cache, "two") == ["q"]
