"""Reads the progress of prepare and trainer pods in the background, and requests a reconcile only when a reading
differs from the last one.

So pods that do not answer delay no reconcile of anybody else, and cost none of their own.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hone.core.kind import ProgressTarget
from hone.core.observed import ProgressReading
from hone.runtime.queue import Clock, Timer

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
        wake: called when a reading differs from the last one.
        reading: its last answer.
        failures: consecutive reads that failed.
        task: the read in progress.
        queued: whether it waits for its read to begin.
        timer: adds it to the queue of reads again.
        is_awaited: whether a reconcile waits for the read in progress, so that it need not be woken.
    """

    namespace: str
    target: ProgressTarget
    wake: Callable[[], None]
    reading: ProgressReading | None = None
    failures: int = 0
    task: "asyncio.Task[None] | None" = None
    queued: bool = False
    timer: Timer | None = None
    is_awaited: bool = False


class Readings:
    """The last readings of pods. A pod is read from the first `latest` of its resource until `forget`.

    Args:
        read: reads a pod's progress; never raises.
        seconds: between the end of a read and the next one of the pod.
        clock: the running event loop, by default.
    """

    def __init__(
        self,
        read: Callable[[ProgressTarget], Awaitable[ProgressReading]],
        seconds: float,
        clock: Clock | None = None,
    ) -> None:
        self._read, self._seconds = read, seconds
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._pods: dict[str, _Pod] = {}  # by uid of the resource
        self._queue: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()  # uids by namespace; they take turns
        self._running: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()

    async def latest(
        self, namespace: str, uid: str, target: ProgressTarget, wake: Callable[[], None]
    ) -> ProgressReading | None:
        """The last reading of a pod, or None as long as there is none.

        Args:
            namespace: namespace of the resource.
            uid: uid of the resource.
            target: its pod.
            wake: called whenever a later reading differs from the one before it.
        """
        pod = self._pods.get(uid)
        if pod is None or pod.target != target:
            self.forget(uid)
            pod = self._pods[uid] = _Pod(namespace, target, wake)
            self._enqueue(uid)
        if pod.reading is None and pod.task is not None and not self._silent[namespace]:
            pod.is_awaited = True
            await asyncio.wait({pod.task}, timeout=FIRST_SECONDS)
            pod.is_awaited = False
        return pod.reading

    def forget(self, uid: str) -> None:
        """The resource has no such pod any longer."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        if pod.queued:
            self._unqueue(pod.namespace, uid)
        if pod.timer:
            pod.timer.cancel()
        if pod.failures:
            self._count_silent(pod.namespace, -1)

    async def close(self) -> None:
        """End all reads."""
        self._queue.clear()
        for timer in [pod.timer for pod in self._pods.values() if pod.timer]:
            timer.cancel()
        tasks = [pod.task for pod in self._pods.values() if pod.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _enqueue(self, uid: str) -> None:
        pod = self._pods[uid]
        pod.timer, pod.queued = None, True
        self._queue.setdefault(pod.namespace, OrderedDict())[uid] = None
        self._dispatch()

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
            intervals = min(2 ** max(0, pod.failures - 1), MAX_BACKOFF)
            pod.timer = self._clock.call_later(self._seconds * intervals, self._enqueue, uid)
            changed, pod.reading = reading != pod.reading, reading
            if changed and not pod.is_awaited:
                pod.wake()
        self._dispatch()

    def _count_silent(self, namespace: str, change: int) -> None:
        self._silent[namespace] += change
        if self._silent[namespace] <= 0:
            del self._silent[namespace]
