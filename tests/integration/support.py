"""What the integration tests share: manifests, a handle on the cluster, an operator in this process."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kubernetes.aio.client.configuration import Configuration

from hone.api import API_VERSION
from hone.core.kinds import KINDS
from hone.core.network import NetworkPeers
from hone.core.observed import Object, Ref
from hone.core.settings import Settings
from hone.runtime.client import Client, Hook, ref_of
from hone.runtime.operator import Operator
from hone.runtime.options import Options

FTJ, MDEP = "FineTuneJob", "ModelDeployment"
SETTINGS = Settings(network_policies=NetworkPeers(), progress_seconds=0.5, resync_seconds=600.0)
OPTIONS = Options(settings=SETTINGS, drain_seconds=5.0, refused_seconds=1.0, pod_name="hone-test")
LIFE_SECONDS = 180.0


def object_of(api_version: str, kind: str, name: str, **rest: Any) -> Object:
    """A manifest."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **copy.deepcopy(rest)}


def finetunejob(name: str = "sft", **spec: Any) -> Object:
    """A FineTuneJob that trains on the CPU, with some fields of its spec replaced."""
    full = {
        "model": {"claim": {"name": "base-models", "path": "tiny"}},
        "dataset": {"train": {"configMap": {"name": "rows", "key": "train.jsonl"}}},
        "compute": {"gpusPerNode": 0},
        **spec,
    }
    return object_of(API_VERSION, FTJ, name, spec=full)


def modeldeployment(name: str = "sft", job: str = "sft", **spec: Any) -> Object:
    """A ModelDeployment that serves a job on the CPU."""
    return object_of(API_VERSION, MDEP, name, spec={"model": {"jobRef": {"name": job}}, "gpus": 0, **spec})


def inputs() -> list[Object]:
    """The claim and the ConfigMap that `finetunejob` refers to."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return [
        object_of("v1", "PersistentVolumeClaim", "base-models", spec=claim),
        object_of("v1", "ConfigMap", "rows", data={"train.jsonl": '{"prompt": "a", "completion": "b"}\n'}),
    ]


def condition(obj: Object | None, kind: str) -> Object:
    """A condition of an object, {} where it has none of that type."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


@dataclass
class Cluster:
    """A namespace of the control plane.

    Attributes:
        client: an administrator's client, not the operator's.
        configuration: how the operator reaches the API server: with the rights of the chart.
        namespace: the test's own namespace.
        kubeconfig: an administrator's, for commands.
        operator_kubeconfig: the operator's.
    """

    client: Client
    configuration: Configuration
    namespace: str
    kubeconfig: Path
    operator_kubeconfig: Path

    async def create(self, *objects: Object) -> None:
        """Create objects."""
        for obj in objects:
            await self.client.create(self.namespace, obj)

    async def get(self, kind: str, name: str, api_version: str = API_VERSION) -> Object | None:
        """An object, or None."""
        return await self.client.get(self.namespace, Ref(api_version, kind, name))

    async def patch(self, kind: str, name: str, body: Object, api_version: str = API_VERSION) -> Object:
        """JSON merge patch."""
        return await self.client.patch(self.namespace, Ref(api_version, kind, name), body)

    async def delete(self, obj: Object) -> None:
        """Delete an object as `kubectl delete` does."""
        live = await self.client.get(self.namespace, ref_of(obj))
        assert live, f"{obj['kind']} {obj['metadata']['name']} is not there"
        await self.client.delete(self.namespace, ref_of(obj), live["metadata"]["uid"])

    async def all(self, kind: str, api_version: str = "v1") -> list[Object]:
        """All objects of a kind."""
        return [*await self.client.list(self.namespace, api_version, kind, "")]

    async def leftovers(self) -> set[str]:
        """`<kind>/<name>` of everything in the namespace that Hone could have made."""
        names = set()
        for api_version, kind in CHILD_KINDS:
            names |= {f"{kind}/{obj['metadata']['name']}" for obj in await self.all(kind, api_version)}
        return names - BUILT_IN

    async def events(self) -> list[tuple[str, str, str]]:
        """(type, reason, message) of the Events on our resources."""
        recorded = await self.all("Event", "events.k8s.io/v1")
        ours = [event for event in recorded if event.get("reportingController", "").startswith("hone.dev")]
        return [(event["type"], event["reason"], event["note"]) for event in ours]

    async def wait_for(
        self, what: str, probe: Callable[[], Awaitable[Any]], seconds: float = LIFE_SECONDS, every: float = 0.2
    ) -> Any:
        """Poll until `probe` returns something true, and return it.

        Raises:
            AssertionError: it did not in time; tells what was there last.
        """
        deadline = time.monotonic() + seconds
        while not (value := await probe()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{await self.describe()}"
            await asyncio.sleep(every)
        return value

    async def wait_phase(self, kind: str, name: str, phase: str, seconds: float = LIFE_SECONDS) -> Object:
        """Wait until a resource is in a phase, and return it."""

        async def probe() -> Object | None:
            obj = await self.get(kind, name)
            return obj if obj and (obj.get("status") or {}).get("phase") == phase else None

        reached: Object = await self.wait_for(f"{kind} {name} {phase}", probe, seconds)
        return reached

    async def describe(self) -> str:
        """The namespace's resources, jobs, pods and events, for a failing test."""
        lines = []
        for kind in (FTJ, MDEP):
            for obj in await self.all(kind, API_VERSION):
                lines.append(f"{kind} {obj['metadata']['name']}: {obj.get('status')}")
        for api_version, kind in (("batch/v1", "Job"), ("v1", "Pod"), ("apps/v1", "Deployment")):
            for obj in await self.all(kind, api_version):
                lines.append(f"{kind} {obj['metadata']['name']}: {obj.get('status')}")
        return "\n".join([*lines, *map(str, await self.events())])

    @asynccontextmanager
    async def operator(self, hook: Hook | None = None, **options: Any) -> AsyncIterator[Operator]:
        """A whole operator on this namespace, in this process."""
        operator = self.make_operator(hook, **options)
        operator.start()
        try:
            yield operator
        finally:
            await operator.stop()

    def make_operator(self, hook: Hook | None = None, **options: Any) -> Operator:
        """An operator on this namespace that is not started yet."""
        chosen = replace(OPTIONS, watch_namespaces=(self.namespace,), **options)
        return Operator(KINDS, self.configuration, chosen, hook)


NewCluster = Callable[[], Awaitable[Cluster]]
"""Makes a namespace of the test's own."""

CHILD_KINDS = (
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "ControllerRevision"),
)
BUILT_IN = {"ConfigMap/kube-root-ca.crt", "ConfigMap/rows", "PersistentVolumeClaim/base-models"}


async def kubectl(cluster: Cluster, *arguments: str) -> tuple[int, str, str]:
    """Run kubectl in the test's namespace: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        "kubectl", f"--kubeconfig={cluster.kubeconfig}", f"--namespace={cluster.namespace}", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
