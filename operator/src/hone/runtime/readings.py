"""Reads the progress of pods in the background, so that pods that do not answer delay no reconcile of anybody else."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hone.core.kind import ProgressTarget
from hone.core.observed import ProgressReading

NAMESPACE_READS = 8
"""Reads of one namespace at a time."""
READS = 32
"""Reads at a time."""
FIRST_SECONDS = 0.2
"""How long a reconcile waits for the first answer of a pod, if all pods of its namespace answer."""
MAX_BACKOFF = 32
"""A pod that does not answer is asked less and less often, at least every so many intervals."""


@dataclass
class _Pod:
    """What is known of a pod.

    Attributes:
        namespace: its namespace.
        target: where it is asked.
        wake: called when it has answered, or has not.
        reading: its last answer.
        due: when to ask again.
        failures: consecutive reads that failed.
        task: the read in progress.
        queued: whether it waits for its read to begin.
    """

    namespace: str
    target: ProgressTarget
    wake: Callable[[], None]
    reading: ProgressReading | None = None
    due: float = float("-inf")
    failures: int = 0
    task: "asyncio.Task[None] | None" = None
    queued: bool = False


class Readings:
    """The last readings of pods.

    Args:
        read: reads a pod's progress; never raises.
        seconds: how often to ask.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        read: Callable[[ProgressTarget], Awaitable[ProgressReading]],
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._read, self._seconds, self._clock = read, seconds, clock
        self._pods: dict[str, _Pod] = {}  # by uid of the resource
        self._queue: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()  # uids by namespace; they take turns
        self._running: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()

    async def latest(
        self, namespace: str, uid: str, target: ProgressTarget, wake: Callable[[], None]
    ) -> ProgressReading | None:
        """The last reading of a pod, or None as long as there is none; it is read again where that is due.

        Args:
            namespace: namespace of the resource.
            uid: uid of the resource.
            target: its pod.
            wake: called once the pod was read again.
        """
        pod = self._pods.get(uid)
        if pod is None or pod.target != target:
            self.forget(uid)
            pod = self._pods[uid] = _Pod(namespace, target, wake)
        if self._clock() >= pod.due and pod.task is None and not pod.queued:
            pod.queued = True
            self._queue.setdefault(namespace, OrderedDict())[uid] = None
            self._dispatch()
        if pod.reading is None and pod.task is not None and not self._silent[namespace]:
            await asyncio.wait({pod.task}, timeout=FIRST_SECONDS)
        return pod.reading

    def forget(self, uid: str) -> None:
        """The resource has no such pod any longer."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        if pod.queued:
            self._unqueue(pod.namespace, uid)
        if pod.failures:
            self._count_silent(pod.namespace, -1)

    async def close(self) -> None:
        """End all reads."""
        self._queue.clear()
        tasks = [pod.task for pod in self._pods.values() if pod.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        """Begin the reads for which there is room, one namespace after the other."""
        for namespace in [*self._queue]:
            if self._running.total() >= READS:
                return
            if self._running[namespace] >= NAMESPACE_READS or namespace not in self._queue:
                continue
            uid = next(iter(self._queue[namespace]))
            self._unqueue(namespace, uid)
            pod = self._pods[uid]
            self._running[namespace] += 1
            pod.task = asyncio.get_running_loop().create_task(self._ask(uid, pod), name=f"progress {uid}")

    def _unqueue(self, namespace: str, uid: str) -> None:
        waiting = self._queue[namespace]
        waiting.pop(uid, None)
        if waiting:
            self._queue.move_to_end(namespace)
        else:
            del self._queue[namespace]
        if uid in self._pods:
            self._pods[uid].queued = False

    async def _ask(self, uid: str, pod: _Pod) -> None:
        try:
            reading = await self._read(pod.target)
        finally:
            pod.task = None
            self._running[pod.namespace] -= 1
            if not self._running[pod.namespace]:
                del self._running[pod.namespace]
        if self._pods.get(uid) is pod:
            failed = reading.progress is None
            self._count_silent(pod.namespace, int(failed) - int(pod.failures > 0))
            pod.failures = pod.failures + 1 if failed else 0
            # A small tolerance: the reconcile for the next reading may come slightly early.
            pod.due = self._clock() + 0.95 * self._seconds * min(2 ** max(0, pod.failures - 1), MAX_BACKOFF)
            changed, pod.reading = reading != pod.reading, reading
            if changed:
                pod.wake()
        self._dispatch()

    def _count_silent(self, namespace: str, change: int) -> None:
        self._silent[namespace] += change
        if self._silent[namespace] <= 0:
            del self._silent[namespace]
