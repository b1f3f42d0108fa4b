"""The client and the Event recorder against a real API server: what each answer becomes, what is left alone."""

import pytest

from hone.core.observed import Ref
from hone.core.plan import Event, EventType
from hone.runtime.errors import Conflict, Invalid, NotFound
from hone.runtime.events import EventRecorder
from hone.runtime.metrics import Metrics
from hone.runtime.operator import utc_now
from tests.integration.support import FTJ, Cluster, finetunejob, object_of

CONFIG = object_of("v1", "ConfigMap", "a", data={"key": "value"})
REF = Ref("v1", "ConfigMap", "a")


async def test_what_exists_is_not_created_again(cluster: Cluster) -> None:
    await cluster.create(CONFIG)
    with pytest.raises(Conflict) as refusal:
        await cluster.create({**CONFIG, "data": {"key": "other"}})
    assert refusal.value.reason == "AlreadyExists"
    config_map = await cluster.client.get(cluster.namespace, REF)
    assert config_map and config_map["data"] == {"key": "value"}


async def test_what_is_not_there_is_none_and_its_deletion_no_error(cluster: Cluster) -> None:
    assert await cluster.client.get(cluster.namespace, REF) is None
    await cluster.client.delete(cluster.namespace, REF, "some-uid")


async def test_an_object_made_anew_is_not_deleted_for_its_predecessor(cluster: Cluster) -> None:
    await cluster.create(CONFIG)
    with pytest.raises(Conflict):
        await cluster.client.delete(cluster.namespace, REF, "the-uid-of-another")
    assert await cluster.client.get(cluster.namespace, REF)


async def test_apply_takes_and_gives_up_fields(cluster: Cluster) -> None:
    for data in ({"a": "1", "b": "2"}, {"a": "3"}):
        await cluster.client.apply(cluster.namespace, {**CONFIG, "data": data}, "hone")
    config_map = await cluster.client.get(cluster.namespace, REF)
    assert config_map and config_map["data"] == {"a": "3"}


async def test_a_stale_status_is_a_conflict(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    stale = await cluster.get(FTJ, "sft")
    assert stale
    await cluster.patch(FTJ, "sft", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(Conflict):
        await cluster.client.update_status(stale, {"phase": "Training"})
    fresh = await cluster.get(FTJ, "sft")
    assert fresh and not fresh.get("status") and fresh["metadata"]["labels"] == {"a": "b"}


async def test_a_status_write_touches_nothing_but_the_status(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    await cluster.patch(FTJ, "sft", {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}})
    job = await cluster.get(FTJ, "sft")
    assert job
    after = await cluster.client.update_status({**job, "spec": {}} | {"spec": job["spec"]}, {"phase": "Training"})
    assert after["metadata"]["labels"] == {"a": "b"} and after["metadata"]["annotations"] == {"c": "d"}
    assert after["metadata"]["generation"] == job["metadata"]["generation"]


async def test_a_status_that_the_crd_does_not_allow_is_invalid(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    job = await cluster.get(FTJ, "sft")
    assert job
    with pytest.raises(Invalid, match=r"status\.phase"):
        await cluster.client.update_status(job, {"phase": "Dreaming"})


async def test_a_namespace_that_is_missing_is_not_found(cluster: Cluster) -> None:
    with pytest.raises(NotFound):
        await cluster.client.create("no-such-namespace", CONFIG)


async def test_only_objects_with_the_labels_are_listed(cluster: Cluster) -> None:
    labeled = object_of("v1", "ConfigMap", "b")
    labeled["metadata"]["labels"] = {"hone.dev/uid": "1"}
    await cluster.create(CONFIG, labeled)
    (config_map,) = await cluster.client.list(cluster.namespace, "v1", "ConfigMap", "hone.dev/uid=1")
    assert (config_map["kind"], config_map["apiVersion"], config_map["metadata"]["name"]) == ("ConfigMap", "v1", "b")


async def test_the_api_server_tells_its_kinds(cluster: Cluster) -> None:
    assert {"FineTuneJob", "ModelDeployment"} <= await cluster.client.kinds("hone.dev/v1alpha1")
    assert await cluster.client.kinds("hone.dev/v9") == set()


async def test_the_same_event_again_raises_its_count(cluster: Cluster) -> None:
    await cluster.create(finetunejob())
    job = await cluster.get(FTJ, "sft")
    assert job
    metrics = Metrics()
    recorder = EventRecorder(cluster.client, metrics, utc_now, "test")
    same = Event(EventType.WARNING, "Unschedulable", "no node has so many GPUs")
    for _ in range(3):
        await recorder.record(job, same)
    await recorder.record(job, Event(EventType.NORMAL, "Started", "ü" * 2000))
    events = {event["reason"]: event for event in await cluster.all("Event", "events.k8s.io/v1")}
    assert events["Unschedulable"]["series"]["count"] == 3
    assert events["Unschedulable"]["regarding"]["uid"] == job["metadata"]["uid"]
    assert events["Started"]["note"] == "ü" * 512
    assert metrics.registry.get_sample_value("hone_event_failures_total") == 0
