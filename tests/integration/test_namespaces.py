"""An operator with rights in some namespaces only, one of which is deleted and made again."""

from dataclasses import replace
from pathlib import Path

from dev.cluster.controlplane import ControlPlane
from hone.core.observed import Object, Ref
from tests.chart.conftest import manifests_of
from tests.integration.identity import account, grant
from tests.integration.support import FTJ, Cluster, NewCluster, finetunejob, inputs, object_of
from tests.integration.test_process import Process, started

READY_SECONDS = 60.0


async def succeed(cluster: Cluster, name: str) -> None:
    """A job of that name ends well."""
    await cluster.create(finetunejob(name))
    await cluster.wait_phase(FTJ, name, "Succeeded")


async def delete_namespace(cluster: Cluster, name: str) -> None:
    """Delete a namespace, and wait until nothing is left of it."""
    ref = Ref("v1", "Namespace", name)

    async def gone() -> bool:
        return await cluster.client.get("", ref) is None

    live = await cluster.client.get("", ref)
    assert live
    await cluster.client.delete("", ref, live["metadata"]["uid"])
    await cluster.wait_for(f"namespace {name} to be gone", gone, 90.0)


def names(process: Process, message: str) -> set[object]:
    """The namespaces of which the operator logged something."""
    return {line["namespace"] for line in process.log if str(line["msg"]).startswith(message)}


async def test_one_of_the_namespaces_goes_and_comes_and_the_others_are_served(
    plane: ControlPlane, new_cluster: NewCluster, tmp_path: Path
) -> None:
    staying = await new_cluster()
    going = replace(staying, namespace=f"{staying.namespace}-going")
    namespace: Object = object_of("v1", "Namespace", going.namespace)
    await staying.client.create("", namespace)
    namespaces = [going.namespace, staying.namespace]
    # Another account than the one of other tests, which may work in the whole cluster.
    manifests = manifests_of({"watchNamespaces": namespaces, "fullnameOverride": staying.namespace}, tmp_path)
    scoped = account(plane.api, plane.kubeconfig, manifests, tmp_path)
    await staying.create(*inputs())

    async with started(staying, scoped.kubeconfig, namespaces) as process:
        await staying.wait_for("readiness", process.ready, READY_SECONDS)
        await delete_namespace(staying, going.namespace)
        await succeed(staying, "after-the-deletion")
        assert await process.ready()

    async with started(staying, scoped.kubeconfig, namespaces) as process:
        await staying.wait_for("readiness without the namespace", process.ready, READY_SECONDS)
        assert names(process, "not watched") == {going.namespace}
        await succeed(staying, "after-the-restart")
        await staying.client.create("", namespace)
        grant(plane.api, manifests)
        await going.create(*inputs())
        await succeed(going, "come-back")
        assert names(process, "the namespace is watched again") == {going.namespace}
        await staying.wait_for("readiness with the namespace", process.ready, READY_SECONDS)
        assert not [line for line in process.log if line["level"] == "error"]
    await delete_namespace(staying, going.namespace)
