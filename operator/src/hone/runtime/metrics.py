"""The operator's metrics: controller-runtime's and client-go's names where they exist, and gauges per resource."""

import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hone.api import finetunejob, finetunejob_status, modeldeployment
from hone.core.observed import Object

_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000)

RESULTS = ("success", "error", "requeue", "requeue_after")
"""controller-runtime's values of the label `result`."""

PHASES = {finetunejob.KIND: tuple(finetunejob_status.Phase), modeldeployment.KIND: tuple(modeldeployment.Phase)}

GAUGES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    finetunejob.KIND: {
        "hone_finetunejob_step": ("Optimizer steps done.", ("progress", "step")),
        "hone_finetunejob_total_steps": ("Optimizer steps of the whole run.", ("progress", "totalSteps")),
        "hone_finetunejob_loss": ("Recent mean training loss.", ("progress", "loss")),
        "hone_finetunejob_reward": ("GRPO, RLOO: recent mean reward of the model's answers.", ("progress", "reward")),
        "hone_finetunejob_tokens_per_second": (
            "Training throughput over all processes.",
            ("progress", "tokensPerSecond"),
        ),
        "hone_finetunejob_retries": ("Failures that counted against retry.limit.", ("usage", "retries")),
        "hone_finetunejob_gpu_seconds": (
            "GPU time of all attempts: seconds multiplied by the number of GPUs.",
            ("usage", "gpuSeconds"),
        ),
    },
    modeldeployment.KIND: {
        "hone_modeldeployment_replicas": ("Server pods that exist.", ("replicas",)),
        "hone_modeldeployment_ready_replicas": ("Server pods that are ready.", ("readyReplicas",)),
    },
}
"""Per kind: metric name to its help text and its path in the status."""
WHILE_TRAINING = ("hone_finetunejob_loss", "hone_finetunejob_reward", "hone_finetunejob_tokens_per_second")
"""Measured by the running trainer: without one, the status has their last values, but there is nothing to plot."""


class Metrics:
    """All metrics of one operator process, in a registry of its own.

    Attributes:
        registry: what is served on `/metrics`.
        resources: the gauges per resource; fed by the controllers.
    """

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.resources = ResourceGauges()
        self.registry.register(self.resources)
        prometheus_client.ProcessCollector(registry=self.registry)
        reg = self.registry

        controller = ["controller"]
        self.reconciles = Counter(
            "controller_runtime_reconcile_total",
            "Reconciliations, by result.",
            [*controller, "result"],
            registry=reg,
        )
        self.errors = Counter(
            "controller_runtime_reconcile_errors_total",
            "Reconciliations that ended in an error.",
            controller,
            registry=reg,
        )
        self.panics = Counter(
            "controller_runtime_reconcile_panics_total",
            "Reconciliations that ended in a bug.",
            controller,
            registry=reg,
        )
        self.seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Duration of a reconciliation.",
            controller,
            buckets=_RECONCILE_BUCKETS,
            registry=reg,
        )
        self.active = Gauge(
            "controller_runtime_active_workers", "Reconciliations that are running.", controller, registry=reg
        )
        self.workers = Gauge(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciliations.",
            controller,
            registry=reg,
        )
        self.requests = Counter(
            "rest_client_requests_total", "Requests to the API server.", ["code", "method"], registry=reg
        )
        self.event_failures = Counter(
            "hone_event_failures_total", "Kubernetes Events that could not be written.", registry=reg
        )

        name = ["name"]
        self.depth = Gauge("workqueue_depth", "Keys waiting for a worker.", name, registry=reg)
        self.adds = Counter("workqueue_adds_total", "Keys added to the queue.", name, registry=reg)
        self.retries = Counter("workqueue_retries_total", "Keys added again after an error.", name, registry=reg)
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "How long a key waits for a worker.",
            name,
            buckets=_QUEUE_BUCKETS,
            registry=reg,
        )
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "How long processing a key takes.",
            name,
            buckets=_QUEUE_BUCKETS,
            registry=reg,
        )
        self.unfinished = Gauge(
            "workqueue_unfinished_work_seconds",
            "Sum of the seconds that keys in progress have taken so far.",
            name,
            registry=reg,
        )
        self.longest = Gauge(
            "workqueue_longest_running_processor_seconds",
            "Seconds of the key that has been in progress longest.",
            name,
            registry=reg,
        )

    def controller(self, name: str, workers: int) -> None:
        """Register a controller, so that its series exist from the start with value 0."""
        self.workers.labels(name).set(workers)
        self.active.labels(name).set(0)
        self.errors.labels(name)
        self.panics.labels(name)
        self.seconds.labels(name)
        for result in RESULTS:
            self.reconciles.labels(name, result)

    def request(self, method: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(code, method).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Shown(NamedTuple):
    """What the gauges show of a resource: its status itself would be most of the process's memory."""

    phase: str
    numbers: tuple[float | None, ...]


class ResourceGauges(Collector):
    """Gauges read from the newest status of each resource; gone when the resource is."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str, str], _Shown] = {}

    def observe(self, kind: str, namespace: str, name: str, resource: Object) -> None:
        """Remember what the gauges show of the resource's status."""
        status = resource.get("status") or {}
        phase = str(status.get("phase", ""))
        hidden = WHILE_TRAINING if phase != finetunejob_status.Phase.TRAINING else ()
        numbers = (None if metric in hidden else _number(status, where) for metric, (_, where) in GAUGES[kind].items())
        self._resources[kind, namespace, name] = _Shown(sys.intern(phase), tuple(numbers))

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop the series of a resource that was deleted."""
        self._resources.pop((kind, namespace, name), None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of all resources, for Prometheus' client."""
        # A copy: metrics are rendered in a thread, while controllers change the original.
        resources = [*self._resources.items()]
        for kind, gauges in GAUGES.items():
            rows = [(namespace, name, shown) for (of, namespace, name), shown in resources if of == kind]
            phase = GaugeMetricFamily(
                f"hone_{kind.lower()}_phase", "1 for the phase that the resource is in.", labels=[*_LABELS, "phase"]
            )
            for namespace, name, shown in rows:
                for value in PHASES[kind]:
                    phase.add_metric([namespace, name, value], float(shown.phase == value))
            yield phase
            for position, (metric, (help_text, _)) in enumerate(gauges.items()):
                family = GaugeMetricFamily(metric, help_text, labels=_LABELS)
                for namespace, name, shown in rows:
                    number = shown.numbers[position]
                    if number is not None:
                        family.add_metric([namespace, name], number)
                yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the names are known only with the resources."""
        return ()


_LABELS = ["namespace", "name"]


def _number(status: dict[str, Any], where: tuple[str, ...]) -> float | None:
    value: Any = status
    for key in where:
        value = value.get(key) if isinstance(value, dict) else None
    try:
        number = float(value)  # The loss is text, for the column.
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
