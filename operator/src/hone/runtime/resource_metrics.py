"""Gauges that show the newest status of resources, and how many resources there are in each phase.

Whatever tenants create, the number of series is bounded: a resource has series of its own until it has ended and for a
while after that, and only so many resources have them at a time, about as many of each namespace.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hone.api import finetunejob, finetunejob_status, modeldeployment
from hone.core.observed import Object
from hone.core.times import parse

ENDED_SECONDS = 3600.0
"""How long a resource that has ended keeps its series. Prometheus then has their last values."""
MAX_RESOURCES = 2000
"""Resources of a kind that have series at a time."""

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
        "hone_finetunejob_promotable": (
            "1 if the tuned model may be served, 0 if it may not; absent before that is decided.",
            ("conditions", "Promotable"),
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
"""Per kind: metric name to its help text and its path in the status; of a condition, its type."""
_TRUTH = {"True": 1.0, "False": 0.0}
WHILE_TRAINING = ("hone_finetunejob_loss", "hone_finetunejob_reward", "hone_finetunejob_tokens_per_second")
"""Measured by the running trainer: without one, the status has their last values, but there is nothing to plot."""


class _Row(NamedTuple):
    """What is shown of a resource: its status itself would be most of the process's memory.

    Attributes:
        namespace: its namespace.
        name: its name.
        phase: its phase.
        numbers: its values, in the order of GAUGES.
        waits: what keeps it from being ready: Reconciling or Stalled, and the condition's reason; None: nothing.
        ended: the Unix time at which it ended; infinity: it has not.
    """

    namespace: str
    name: str
    phase: str
    numbers: tuple[float | None, ...]
    waits: tuple[str, str] | None
    ended: float


class ResourceGauges(Collector):
    """Gauges read from the newest status of each resource; gone when the resource is.

    Args:
        clock: Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rows: dict[str, dict[tuple[str, str], _Row]] = {kind: {} for kind in GAUGES}
        self._phases: dict[str, Counter[str]] = {kind: Counter() for kind in GAUGES}

    def observe(self, kind: str, namespace: str, name: str, resource: Object) -> None:
        """Remember what the gauges show of the resource's status."""
        status = resource.get("status") or {}
        phase = sys.intern(str(status.get("phase", "")))
        hidden = WHILE_TRAINING if phase != finetunejob_status.Phase.TRAINING else ()
        numbers = (None if metric in hidden else _number(status, where) for metric, (_, where) in GAUGES[kind].items())
        ended = _ended(phase, status)
        # Those of a resource that ended long ago are never shown again.
        values = tuple(numbers) if self._is_shown(ended) else ()
        before = self._rows[kind].get((namespace, name))
        self._rows[kind][namespace, name] = _Row(namespace, name, phase, values, _waits(status), ended)
        self._count(kind, before, phase)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop the series of a resource that was deleted."""
        self._count(kind, self._rows[kind].pop((namespace, name), None), None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of all resources, for Prometheus' client."""
        for kind, gauges in GAUGES.items():
            lower = kind.lower()
            count = GaugeMetricFamily(f"hone_{lower}s", "Resources that are in the phase.", labels=["phase"])
            for value in PHASES[kind]:
                count.add_metric([value], self._phases[kind][value])
            yield count
            rows = self._shown(kind)
            phase = GaugeMetricFamily(
                f"hone_{lower}_phase", "1 for the phase that the resource is in.", labels=[*_LABELS, "phase"]
            )
            for row in rows:
                for value in PHASES[kind]:
                    phase.add_metric([row.namespace, row.name, value], float(row.phase == value))
            yield phase
            condition = GaugeMetricFamily(
                f"hone_{lower}_condition",
                "1 for the condition, Reconciling or Stalled, that says why the resource is not ready.",
                labels=[*_LABELS, "type", "reason"],
            )
            for row in rows:
                if row.waits is not None:
                    condition.add_metric([row.namespace, row.name, *row.waits], 1.0)
            yield condition
            for position, (metric, (help_text, _)) in enumerate(gauges.items()):
                family = GaugeMetricFamily(metric, help_text, labels=_LABELS)
                for row in rows:
                    number = row.numbers[position]
                    if number is not None:
                        family.add_metric([row.namespace, row.name], number)
                yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the names are known only with the resources."""
        return ()

    def _count(self, kind: str, before: _Row | None, phase: str | None) -> None:
        """Count a resource in its phase, and no longer in the one before."""
        if before is not None:
            self._phases[kind][before.phase] -= 1
        if phase is not None:
            self._phases[kind][phase] += 1

    def _is_shown(self, ended: float) -> bool:
        return ended > self._clock() - ENDED_SECONDS

    def _shown(self, kind: str) -> list[_Row]:
        """The resources that have series: those that have not ended first, one of each namespace after the other."""
        # A copy: metrics are rendered in a thread, while controllers change the original.
        rows = [row for row in [*self._rows[kind].values()] if row.numbers and self._is_shown(row.ended)]
        if len(rows) <= MAX_RESOURCES:
            return rows
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, _Row]] = []
        for row in sorted(rows, key=lambda row: -row.ended):
            turns[row.namespace] += 1
            ranked.append((turns[row.namespace], row))
        return [row for _, row in sorted(ranked, key=lambda entry: entry[0])[:MAX_RESOURCES]]


_LABELS = ["namespace", "name"]
_ENDED = (finetunejob_status.Phase.SUCCEEDED, finetunejob_status.Phase.FAILED)


def _ended(phase: str, status: dict[str, Any]) -> float:
    """When a resource ended; infinity if it has not. A ModelDeployment never ends: one that failed may recover."""
    if phase not in _ENDED or "completionTime" not in status:
        return math.inf
    return parse(status["completionTime"]).timestamp()


def _waits(status: dict[str, Any]) -> tuple[str, str] | None:
    for condition in status.get("conditions") or []:
        if condition.get("type") in ("Reconciling", "Stalled") and condition.get("status") == "True":
            return sys.intern(str(condition["type"])), sys.intern(str(condition.get("reason", "")))
    return None


def _number(status: dict[str, Any], where: tuple[str, ...]) -> float | None:
    value: Any = status
    for key in where:
        if isinstance(value, list):
            value = next((_TRUTH.get(each.get("status")) for each in value if each.get("type") == key), None)
        else:
            value = value.get(key) if isinstance(value, dict) else None
    try:
        number = float(value)  # The loss is text, for the column.
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
