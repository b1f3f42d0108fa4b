"""The evidence cache: which pods it keeps, for whom, and how many."""

import pytest

from hone.runtime.evidence import EvidenceCache
from tests.unit.runtime.support import pod


def terminated(uid: str) -> dict:
    out = pod(uid)
    out["status"]["containerStatuses"] = [{"name": "main", "state": {"terminated": {"exitCode": 65}}}]
    return out


ENDING = {
    "deleted": ("DELETED", pod("p")),
    "being deleted": ("MODIFIED", pod("p", deletionTimestamp="2026-01-01T00:00:00Z")),
    "failed": ("MODIFIED", pod("p", phase="Failed")),
    "succeeded": ("ADDED", pod("p", phase="Succeeded")),
    "on a lost node": ("MODIFIED", pod("p", phase="Unknown")),
    "with an ended container": ("MODIFIED", terminated("p")),
    "ended before we looked": (None, pod("p", phase="Failed")),
}


@pytest.mark.parametrize("case", ENDING)
def test_an_ending_pod_is_remembered_when_it_is_gone(case: str) -> None:
    cache = EvidenceCache()
    event, seen = ENDING[case]
    cache.saw(event, seen)
    (entry,) = cache.merge("job-uid", [])
    assert entry.gone
    assert entry.raw["status"] == seen["status"]


def test_a_living_pod_is_not_remembered() -> None:
    cache = EvidenceCache()
    cache.saw("MODIFIED", pod("p"))
    assert cache.merge("job-uid", []) == ()


def test_what_is_listed_counts_more_than_what_is_remembered() -> None:
    cache = EvidenceCache()
    cache.saw("MODIFIED", pod("p", phase="Failed"))
    live = pod("p", phase="Failed", resourceVersion="2")
    (entry,) = cache.merge("job-uid", [live])
    assert not entry.gone and entry.raw is live


def test_each_resource_sees_only_its_own_pods() -> None:
    cache = EvidenceCache()
    cache.saw("DELETED", pod("p", owner_uid="one"))
    cache.saw("DELETED", pod("q", owner_uid="two"))
    assert [entry.raw["metadata"]["uid"] for entry in cache.merge("two", [])] == ["q"]


def test_the_last_state_of_a_pod_is_kept() -> None:
    cache = EvidenceCache()
    cache.saw("MODIFIED", pod("p", deletionTimestamp="2026-01-01T00:00:00Z"))
    cache.saw("DELETED", pod("p", phase="Failed"))
    (entry,) = cache.merge("job-uid", [])
    assert entry.raw["status"]["phase"] == "Failed"


def test_the_oldest_goes_when_it_is_full() -> None:
    cache = EvidenceCache(limit=2)
    for uid in ("a", "b", "c"):
        cache.saw("DELETED", pod(uid))
    assert [entry.raw["metadata"]["uid"] for entry in cache.merge("job-uid", [])] == ["b", "c"]


def test_a_deleted_resource_is_forgotten() -> None:
    cache = EvidenceCache()
    cache.saw("DELETED", pod("p", owner_uid="one"))
    cache.saw("DELETED", pod("q", owner_uid="two"))
    cache.forget("one")
    assert len(cache) == 1


def test_managed_fields_are_not_kept() -> None:
    cache = EvidenceCache()
    cache.saw("DELETED", pod("p", managedFields=[{"manager": "kubelet"}]))
    (entry,) = cache.merge("job-uid", [])
    assert "managedFields" not in entry.raw["metadata"]
