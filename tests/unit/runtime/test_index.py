"""The index: which of two states of an object stays, what deletions and listings remove, and what it costs."""

import itertools
import random
from typing import Any

import pytest

from hone.core.observed import Object, Ref
from hone.runtime.evidence import EvidenceCache
from hone.runtime.index import MAX_DELETED, Change, Index
from hone.runtime.listings import Listings, Page
from hone.runtime.triggers import Triggers
from tests.unit.runtime.support import pod

REF = Ref("batch/v1", "Job", "a")


def job(version: int, uid: str = "one", name: str = "a", **status: Any) -> Object:
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": status}


def active(index: Index) -> int | None:
    live = index.get("ns", REF)
    return live["status"]["active"] if live else None


def test_what_is_put_is_read_whole_and_as_a_copy() -> None:
    index, obj = Index(), job(7, active=1)
    index.put(obj)
    read = index.get("ns", REF)
    assert read == obj
    assert read is not None
    read["status"]["active"] = 2
    assert active(index) == 1
    assert index.get("other", REF) is None and index.get("ns", Ref("v1", "Pod", "a")) is None


def test_a_read_after_our_own_write_is_never_older_than_it() -> None:
    index = Index()
    index.put(job(5, active=1))
    index.put(job(9, active=2))  # the answer to our write
    assert index.put(job(6, active=7)) == Change.STALE, "an event from before the write"
    assert active(index) == 2
    assert index.put(job(9, active=2)) == Change.SAME, "the event of the write itself"
    assert index.put(job(10, active=3)) == Change.CHANGED


def test_a_deleted_object_does_not_come_back_by_a_late_event() -> None:
    index = Index()
    index.put(job(5))
    index.remove(job(6))
    assert index.put(job(9)) == Change.STALE, "whatever its version says"
    assert index.get("ns", REF) is None


def test_a_late_deletion_leaves_the_object_that_has_the_name_now() -> None:
    index = Index()
    index.put(job(5, uid="one", active=1))
    index.put(job(9, uid="two", active=2))
    index.remove(job(8, uid="one"))
    assert active(index) == 2
    index.put(job(6, uid="one", active=1))
    assert active(index) == 2


def test_any_order_of_events_ends_in_the_same_state() -> None:
    history = [("put", job(v, active=v)) for v in (1, 2, 3)]
    history += [("remove", job(4)), ("put", job(5, uid="two", active=5)), ("put", job(6, uid="two", active=6))]
    for order in itertools.permutations(history):
        index = Index()
        for action, obj in (*order, random.Random(len(order)).choice(order)):
            getattr(index, action)(obj)
        assert active(index) == 6


def test_pods_are_found_by_namespace_and_uid_of_their_resource() -> None:
    index = Index()
    for each in (pod("b"), pod("a"), pod("c", owner_uid="other"), pod("d", namespace="stranger")):
        index.put(each)
    assert [p["metadata"]["name"] for p in index.pods("ns", "job-uid")] == ["a", "b"]
    index.remove(pod("a"))
    index.put(pod("b", owner_uid="other", resourceVersion="2"))
    assert index.pods("ns", "job-uid") == []
    assert [p["metadata"]["name"] for p in index.pods("ns", "other")] == ["b", "c"]


def test_an_object_that_the_api_server_lacks_is_dropped_unless_it_changed_meanwhile() -> None:
    index = Index()
    index.put(job(5))
    before = index.version("ns", REF)
    index.put(job(6, uid="two", active=2))
    index.absent("ns", REF, before)
    assert active(index) == 2
    index.absent("ns", REF, index.version("ns", REF))
    assert index.get("ns", REF) is None


def test_deleted_uids_are_remembered_up_to_a_limit() -> None:
    index = Index()
    for number in range(MAX_DELETED + 10):
        index.remove(job(1, uid=f"u{number}"))
    assert len(index._deleted) == MAX_DELETED


class Relisting:
    """An index with the listings that correct it."""

    def __init__(self) -> None:
        self.index, self.keys = Index(), []
        self.evidence = EvidenceCache()
        triggers = Triggers({}, lambda kind, key, listed: self.keys.append(key), self.index, self.evidence)
        self.listings = Listings(self.index, triggers)

    def page(self, *objects: Object, version: str = "100", first: bool = True, last: bool = True, ns: str = "") -> None:
        kind = objects[0]["kind"] if objects else "Job"
        api_version = objects[0]["apiVersion"] if objects else "batch/v1"
        self.listings.page(Page(api_version, kind, ns, objects, version, first, last))


def test_a_new_listing_drops_what_was_deleted_while_nobody_watched() -> None:
    case = Relisting()
    for number in range(3):
        case.index.put(job(number + 1, uid=f"u{number}", name=f"j{number}"))
    case.index.put(job(101, uid="new", name="new"))  # our write, after the listing was made
    case.page(job(1, uid="u0", name="j0"), last=False)
    assert len(case.index) == 4, "not before the listing is whole"
    case.page(job(3, uid="u2", name="j2"), first=False)
    names = [name for name in ("j0", "j1", "j2", "new") if case.index.get("ns", Ref("batch/v1", "Job", name))]
    assert names == ["j0", "j2", "new"]


def test_a_listing_that_broke_off_begins_anew() -> None:
    case = Relisting()
    case.index.put(job(1))
    case.page(job(1), last=False)
    case.page(job(2, uid="two", name="b"))
    assert case.index.get("ns", REF) is None


def test_a_listing_of_one_namespace_says_nothing_of_others() -> None:
    case = Relisting()
    case.index.put(job(1))
    case.page(ns="elsewhere")
    assert case.index.get("ns", REF) is not None
    case.page(ns="ns")
    assert case.index.get("ns", REF) is None


def test_a_pod_that_ended_and_vanished_remains_as_evidence() -> None:
    case = Relisting()
    case.index.put(pod("p", phase="Failed"))
    case.page(pod("q"))
    assert len(case.evidence) == 1


@pytest.mark.parametrize("size", [10_000])
@pytest.mark.slow
def test_a_finished_run_costs_little_memory(size: int) -> None:
    """A resource with its status, the Jobs' claims, ConfigMap and NetworkPolicy: below 8 KiB for the whole run."""
    import tracemalloc

    text = {f"field{number}": f"some text that is about as long as a message {number}" for number in range(40)}
    tracemalloc.start()
    try:
        index = Index()
        for number in range(size // 10):
            resource = job(1, uid=f"{number:036d}", name=f"a-run-{number}", **text)
            index.put({**resource, "apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob"})
            for kind in ("ConfigMap", "PersistentVolumeClaim", "Claim", "NetworkPolicy"):
                index.put({**job(1, uid=f"{kind}{number:030d}", name=f"a-run-{number}"), "kind": kind})
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / (size // 10) < 8192
