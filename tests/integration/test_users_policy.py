"""The policy for users against the real API server: it refuses what the operator would not run, and nothing else."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.say import wait_until
from hone.core.allowlists import NOT_ALLOWED, AllowLists, chart_name, not_allowed
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources import images as mounted_images
from hone.core.kinds import KINDS
from hone.core.observed import Object
from hone.core.settings import Settings
from hone.runtime.client import path
from hone.runtime.errors import Refused
from tests.chart.conftest import manifests_of
from tests.integration.identity import EFFECT_SECONDS, where
from tests.integration.support import FTJ, SETTINGS, Cluster, condition, finetunejob, inputs, modeldeployment

LISTS = AllowLists(
    priority_classes=("low", "batch-*"),
    tolerations=("gpu", "team-*"),
    annotations=("a.example.com/*",),
    images=("registry.example.com/team/*", "trainer:1"),
    schedulers=("default-scheduler",),
)
PODS: list[dict[str, Any]] = [
    {},
    *({"priorityClassName": name} for name in ("low", "batch-1", "batch-x", "lower", "high", "system-node-critical")),
    *({"schedulerName": name} for name in ("default-scheduler", "mine")),
    *({"annotations": {name: "b"}} for name in ("a.example.com/b", "a.example.org/b", "a.example.com")),
    *({"tolerations": [{"operator": "Exists", **key}]} for key in ({}, {"key": ""})),
    *({"tolerations": [{"key": key, "operator": "Exists"}]} for key in ("gpu", "team-a", "gpus", "control-plane")),
    {"tolerations": [{"key": "gpu", "operator": "Exists"}, {"operator": "Exists"}]},
]
IMAGES = ("trainer:1", "trainer:12", "registry.example.com/team/a:1", "registry.example.com/teams/a:1", "a")


PINNED = [f"registry.example.com/{name}@sha256:{'0' * 64}" for name in ("team/a", "teams/a")]
DATA = {"claim": {"name": "data", "path": "rows.jsonl"}}


def sources(reference: str) -> Iterator[dict[str, Any]]:
    """Specs of a FineTuneJob that name this image as each of their models and data."""
    source = {"image": {"reference": reference}}
    yield {"model": source}
    yield {"objective": "Distillation", "teacher": source}
    yield {"objective": "GRPO", "reward": {"model": source}}
    yield {"dataset": {"train": source}}
    yield {"dataset": {"train": {"sources": [{"name": "a", **DATA}, {"name": "b", **source}]}}}
    yield {"dataset": {"train": DATA, "validation": source}}
    yield {"dataset": {"train": DATA, "test": source}}


Verdict = tuple[bool, str]
"""Whether the API server accepts a resource, and its message if not."""


def resource_for(kind: str, pod: dict[str, Any], image: str | None = None) -> Object:
    """A resource that asks for this image and these settings of its pods."""
    if kind == FTJ:
        return finetunejob(compute={"gpusPerNode": 0, "pod": pod, **({"image": image} if image else {})})
    return modeldeployment(pod=pod, **({"runtime": {"image": image}} if image else {}))


RESOURCES = [
    *(resource_for(kind, pod) for kind in KINDS for pod in PODS),
    *(resource_for(kind, {}, image) for kind in KINDS for image in IMAGES),
    *(finetunejob(**spec) for image in PINNED for spec in sources(image)),
]


def verdict(plane: ControlPlane, namespace: str, resource: Object) -> Verdict:
    """What the API server says to a dry run of an administrator."""
    try:
        plane.api.call("POST", f"{path(resource['apiVersion'], resource['kind'], namespace)}?dryRun=All", resource)
    except HTTPError as error:
        assert error.code in (403, 422), error
        return False, json.loads(error.read())["message"]
    return True, ""


def by_core(resource: Object) -> str | None:
    """Why the operator would make no pods of the resource, or None."""
    spec = KINDS[resource["kind"]].subject(resource, Settings()).spec
    if resource["kind"] == FTJ:
        mounted = dict(mounted_images(Run(resource, Settings())))
        place, pod, images = "spec.compute.pod", spec.compute.pod, {"spec.compute.image": spec.compute.image, **mounted}
    else:
        place, pod, images = "spec.pod", spec.pod, {"spec.runtime.image": spec.runtime and spec.runtime.image}
    trouble = not_allowed(LISTS, resource, place, pod, images)
    return trouble and trouble.message


@pytest.fixture
def limited(cluster: Cluster, plane: ControlPlane, tmp_path: Path) -> Iterator[str]:
    """A namespace with the policy, which is rendered for this namespace only."""
    lists = {chart_name(name): list(entries) for name, entries in vars(LISTS).items()}
    values = {"watchNamespaces": [cluster.namespace], "admissionPolicies": {"users": {"enabled": True, **lists}}}
    policies = [each for each in manifests_of(values, tmp_path) if each["metadata"]["name"].startswith("hone-users.")]
    for manifest in policies:
        plane.api.apply(where(manifest), manifest)
    too_much = {**resource_for(FTJ, {}, "another"), "metadata": {"name": "probe"}}
    wait_until(lambda: not verdict(plane, cluster.namespace, too_much)[0], "the policy taking effect", EFFECT_SECONDS)
    yield cluster.namespace
    for manifest in reversed(policies):
        plane.api.call("DELETE", where(manifest))


def test_the_policy_refuses_exactly_what_the_operator_would_not_run(limited: str, plane: ControlPlane) -> None:
    refusals = 0
    for resource in RESOURCES:
        accepts, message = verdict(plane, limited, resource)
        reason = by_core(resource)
        assert accepts is (reason is None), (resource, message)
        if reason:
            refusals += 1
            field, words = re.split(r"[ :\[]", reason)[0], re.split(" in this cluster; | 'system-': ", reason)[1]
            assert field in message and words in message, (reason, message)
    assert len(RESOURCES) / 3 < refusals < len(RESOURCES)


def test_the_policy_is_for_its_namespaces_only(limited: str, plane: ControlPlane) -> None:
    assert not verdict(plane, limited, resource_for(FTJ, {}, "another"))[0]
    assert verdict(plane, "default", resource_for(FTJ, {}, "another"))[0]


async def test_a_resource_that_is_older_than_the_policy_can_be_labeled_suspended_and_deleted(
    cluster: Cluster, plane: ControlPlane, request: pytest.FixtureRequest
) -> None:
    older = resource_for(FTJ, {}, "another")
    await cluster.create(older)
    request.getfixturevalue("limited")
    await cluster.patch(FTJ, "sft", {"metadata": {"labels": {"a": "b"}}})
    await cluster.patch(FTJ, "sft", {"spec": {"suspend": True}})
    with pytest.raises(Refused, match=r"spec\.compute\.image: 'another' is not allowed in this cluster"):
        await cluster.patch(FTJ, "sft", {"spec": {"compute": {"nodes": 2}}})
    await cluster.patch(FTJ, "sft", {"spec": {"compute": {"image": "trainer:1"}}})
    await cluster.delete(older)


async def test_an_older_resource_gets_no_other_images_with_models_and_data(
    cluster: Cluster, plane: ControlPlane, request: pytest.FixtureRequest
) -> None:
    good, bad = ({"reference": each} for each in PINNED)
    await cluster.create(finetunejob(compute={"gpusPerNode": 0, "image": "trainer:1"}))
    request.getfixturevalue("limited")
    with pytest.raises(Refused, match=r"spec\.model\.image\.reference: 'registry\.example\.com/teams/a@sha256:0"):
        await cluster.patch(FTJ, "sft", {"spec": {"model": {"claim": None, "image": bad}}})
    await cluster.patch(FTJ, "sft", {"spec": {"model": {"claim": None, "image": good}}})


async def test_without_the_policy_the_operator_makes_no_pods_and_says_why(cluster: Cluster) -> None:
    await cluster.create(*inputs(), resource_for(FTJ, {"priorityClassName": "high"}))

    async def stalled() -> str | None:
        entry = condition(await cluster.get(FTJ, "sft"), "Stalled")
        return entry["message"] if entry.get("reason") == NOT_ALLOWED else None

    async with cluster.operator(settings=replace(SETTINGS, allow_lists=LISTS)):
        message = await cluster.wait_for("Stalled/NotAllowed", stalled)
    assert message.startswith("spec.compute.pod.priorityClassName: 'high' is not allowed in this cluster")
    assert await cluster.leftovers() == set()
