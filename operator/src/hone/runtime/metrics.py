"""The operator's metrics: controller-runtime's and client-go's names where they exist, and those of the resources."""

import time
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hone.runtime.resource_metrics import ResourceGauges

_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000)

RESULTS = ("success", "error", "requeue", "requeue_after")
"""controller-runtime's values of the label `result`."""


class Metrics:
    """All metrics of one operator process, in a registry of its own.

    Attributes:
        registry: what is served on `/metrics`.
        resources: the gauges per resource; fed by the controllers.

    Args:
        clock: Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.resources = ResourceGauges(clock)
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
        self.leader = Gauge(
            "leader_election_master_status",
            "1 if this process holds the Lease and reconciles, 0 if it waits.",
            name,
            registry=reg,
        )
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

    def leads(self, name: str, leads: bool) -> None:
        """Show whether this process holds a Lease."""
        self.leader.labels(name).set(leads)

    def request(self, method: str, code: str) -> None:
        """Count a request to the API server."""
        self.requests.labels(code, method).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
