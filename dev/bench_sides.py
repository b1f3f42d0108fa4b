"""The sides that dev/bench_operator.py compares: what each calls a job, and which processes work on it."""

import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import peers
from dev.cluster import kwok
from dev.cluster.api import answers
from dev.cluster.controlplane import ControlPlane, free_ports
from dev.uv import ROOT
from hone.api import API_VERSION
from hone.core.names import RESOURCE_LABELS, STEP_LABEL
from hone.core.observed import Object
from tests.chart.conftest import manifests_of
from tests.integration.identity import NAMESPACE as OPERATOR_NAMESPACE
from tests.integration.identity import install
from tests.integration.kubelet import stages
from tests.integration.support import FTJ, finetunejob, object_of

ENDED_MS = 200
"""When every pod ends, in milliseconds after its start; the same for all sides (`tests/integration/kubelet.py`)."""
SECOND = "-second"
READY_SECONDS = 120.0
Operators = Callable[[ControlPlane], AbstractAsyncContextManager[tuple[str, ...]]]


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: its name.
        api_version: apiVersion of what is created for a job.
        kind: its kind.
        job: makes one, by its name.
        trains: the name of the job whose trainer a pod is; empty for any other pod.
        is_done: whether an object of the kind has done its work.
        operators: starts what works on the jobs; gives the names of the processes.
        users: how the API server calls them.
        is_pair: whether a job is two objects, the second of which is created when the first is done.
    """

    name: str
    api_version: str
    kind: str
    job: Callable[[str], Object]
    trains: Callable[[Object], str]
    is_done: Callable[[Object], bool]
    operators: Operators
    users: tuple[str, ...] = ()
    is_pair: bool = False

    def next(self, job: Object) -> Object | None:
        """What follows an object that is done; None where the job is done."""
        name = job["metadata"]["name"]
        return self.job(name + SECOND) if self.is_pair and not name.endswith(SECOND) else None

    def first(self, name: str) -> str:
        """The name of the job that an object belongs to."""
        return name.removesuffix(SECOND) if self.is_pair else name

    @property
    def stages(self) -> list[kwok.Manifest]:
        """kwok's Stages: the steps of Hone's jobs end with their results, and other Jobs' pods as soon as they do."""
        ended = kwok.pod_stages(ENDED_MS)[1]
        no_step = {"key": f'.metadata.labels["{STEP_LABEL}"]', "operator": "DoesNotExist"}
        ended["spec"]["selector"]["matchExpressions"].append(no_step)
        return [*stages(), ended]


def _plain_job(name: str) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "train", "image": "none.invalid/none"}]}
    return object_of("batch/v1", "Job", name, spec={"template": {"spec": pod}})


def _train_job(name: str) -> Object:
    spec = {"runtimeRef": {"name": peers.RUNTIME}, "trainer": {"numNodes": 1, "image": "none.invalid/none"}}
    return object_of("trainer.kubeflow.org/v1alpha1", "TrainJob", name, spec=spec)


def _has(condition: str) -> Callable[[Object], bool]:
    def is_done(obj: Object) -> bool:
        conditions = (obj.get("status") or {}).get("conditions") or []
        return any(each["type"] == condition and each["status"] == "True" for each in conditions)

    return is_done


def _succeeded(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") == "Succeeded"


def _labeled(label: str, **others: str) -> Callable[[Object], str]:
    def trains(pod: Object) -> str:
        labels: dict[str, str] = pod["metadata"].get("labels") or {}
        return labels.get(label, "") if others.items() <= labels.items() else ""

    return trains


def _second_of_pair(pod: Object) -> str:
    name = _labeled("job-name")(pod)
    return name.removesuffix(SECOND) if name.endswith(SECOND) else ""


@asynccontextmanager
async def _nobody(plane: ControlPlane) -> AsyncIterator[tuple[str, ...]]:
    """Plain Jobs need nothing but Kubernetes."""
    yield ()


@asynccontextmanager
async def _peers(plane: ControlPlane) -> AsyncIterator[tuple[str, ...]]:
    """Kubeflow Trainer and JobSet."""
    with peers.started(plane) as names:
        yield names


@asynccontextmanager
async def _hone(plane: ControlPlane) -> AsyncIterator[tuple[str, ...]]:
    """Hone's operator, with the rights, the policy and the options of the chart."""
    with tempfile.TemporaryDirectory() as folder:
        identity = install(plane.api, plane.kubeconfig, manifests_of({}, Path(folder)), Path(folder))
        metrics, probes = free_ports(2)
        environment = {
            "KUBECONFIG": str(identity.kubeconfig),
            "HONE_METRICS_PORT": str(metrics),
            "HONE_PROBE_PORT": str(probes),
            "HONE_NETWORK_POLICIES": "{}",
            "PYTHONPATH": str(ROOT / "operator" / "src"),
        }
        plane.processes.start("hone", [sys.executable, "-m", "hone.runtime"], environment)
        plane.processes.wait_ready("hone", lambda: answers(f"http://127.0.0.1:{probes}/readyz"), READY_SECONDS)
        try:
            yield ("hone",)
        finally:
            plane.processes.stop("hone", grace=0.0)


_JOB: dict[str, Any] = {"api_version": "batch/v1", "kind": "Job", "job": _plain_job, "is_done": _has("Complete")}
_ALL = (
    Side(name="Job", trains=_labeled("job-name"), operators=_nobody, **_JOB),
    Side(name="two Jobs", trains=_second_of_pair, operators=_nobody, is_pair=True, **_JOB),
    Side(
        name="Trainer",
        api_version="trainer.kubeflow.org/v1alpha1",
        kind="TrainJob",
        job=_train_job,
        trains=_labeled("jobset.sigs.k8s.io/jobset-name"),
        is_done=_has("Complete"),
        operators=_peers,
        users=tuple(map(peers.user, ("jobset-system", peers.TRAINER_NAMESPACE))),
    ),
    Side(
        name="Hone",
        api_version=API_VERSION,
        kind=FTJ,
        job=finetunejob,
        trains=_labeled(RESOURCE_LABELS[FTJ], **{STEP_LABEL: "train"}),
        is_done=_succeeded,
        operators=_hone,
        users=(f"system:serviceaccount:{OPERATOR_NAMESPACE}:hone",),
    ),
)
SIDES = {side.name: side for side in _ALL}
