"""Decisions read nothing that trimming drops: every golden case and every object of a life gives the same Plan."""

import copy
from typing import Any

import pytest

from hone.core.kinds import KINDS
from hone.core.names import MANAGED_BY, MANAGED_BY_LABEL
from hone.core.trim import MAX_ITEMS, MAX_TEXT, trimmed
from tests.golden.cases import inputs, parts, plan_of

CASES = dict(inputs())
FOREIGN = ("ConfigMap",)
"""Kinds of which decisions read the data where users name them; those are read from the API server."""


def _trimmed(obj: dict[str, Any]) -> dict[str, Any]:
    return obj if obj["kind"] in FOREIGN else trimmed(obj)


@pytest.mark.parametrize("name", CASES)
def test_a_trimmed_cluster_gives_the_same_plan(name: str) -> None:
    resource, cluster = copy.deepcopy(CASES[name])
    small = {**cluster, "objects": [_trimmed(obj) for obj in cluster.get("objects") or []]}
    small["pods"] = [_trimmed_pod(pod) for pod in cluster.get("pods") or []]
    old = resource.get("status") or {}
    whole = parts(old, plan_of(resource, cluster))
    assert parts(old, plan_of(trimmed(resource), small)) == whole


def _trimmed_pod(entry: dict[str, Any]) -> dict[str, Any]:
    raw = {"apiVersion": "v1", "kind": "Pod", **entry.get("raw", entry)}
    return {"raw": trimmed(raw), "gone": entry.get("gone", False)}


def test_a_pod_that_its_author_filled_is_small() -> None:
    filling = "x" * 400_000
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u", "labels": {MANAGED_BY_LABEL: MANAGED_BY, "own": filling},
            "annotations": {"own": filling, "hone.dev/owner": filling}, "managedFields": [filling],
        },
        "spec": {"nodeName": "n", "affinity": {"own": filling}, "containers": [{"env": [{"value": filling}]}] * 9},
        "status": {
            "phase": "Failed", "message": filling, "conditions": [{"type": "A", "message": filling}],
            "containerStatuses": [{"name": "c", "image": filling, "state": {"terminated": {"message": filling}}}],
        },
    }  # fmt: skip
    assert len(str(trimmed(pod))) < 5 * MAX_TEXT


def test_long_lists_are_cut_but_not_those_of_our_own_kinds() -> None:
    status = {"conditions": [{"type": str(number)} for number in range(2 * MAX_ITEMS)]}
    meta = {"name": "p", "namespace": "ns", "uid": "u"}
    pod = trimmed({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status})
    assert len(pod["status"]["conditions"]) == MAX_ITEMS
    for kind in KINDS:
        ours = trimmed({"apiVersion": "v1", "kind": kind, "metadata": meta, "status": status})
        assert ours["status"] == status
