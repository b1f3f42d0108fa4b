"""A work queue: fair between groups, one worker per key, duplicates merged, back-off, delayed adds, drained on stop."""

import asyncio
import logging
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from hone.runtime.metrics import Metrics

Key = TypeVar("Key", bound=Hashable)
BASE_SECONDS = 0.05
MAX_SECONDS = 300.0
PACE_SECONDS = 0.025
"""How often a group may begin a key while another one has work: a key that needs no answer of the API server occupies
the event loop without a pause, and each step of the other group's key would wait for some of them."""
BURST = 4
"""Keys that a group may begin at once before that."""
_NOBODY = object()
log = logging.getLogger(__name__)


class Timer(Protocol):
    """A scheduled call that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the call."""

    def when(self) -> float:
        """The time at which it is due."""


class Clock(Protocol):
    """The part of an event loop that the queue uses; tests pass one with a time of their own."""

    def time(self) -> float:
        """Seconds since an arbitrary time."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call `callback(*args)` after `delay` seconds."""


class WorkQueue(Generic[Key]):
    """Hands keys to `process`, at most `workers` at a time and never the same key twice at a time.

    A key that is added while it waits is merged with the waiting one; a key that is added while it is processed is
    processed once more afterwards. The groups take turns, so that the keys of one do not wait for all of another's.
    None has all workers, so that a key of another one finds a worker free; and where several have work, each has its
    share and its pace, so that this key takes turns on the event loop with few.
    Not thread-safe: call it from the loop in which it was started.

    Args:
        name: the label `name` of its metrics.
        process: processes one key; must not raise (an exception is logged, and the key backs off).
        metrics: where its metrics go.
        workers: maximum number of keys that are processed at a time.
        clock: the running event loop, by default.
        group: the group of a key, such as its namespace; by default, all are in one.
        share: maximum number of keys of a group that are processed at a time while other groups have keys. A group
            that is alone leaves so many workers free. 0: no limits.
    """

    def __init__(
        self,
        name: str,
        process: Callable[[Key], Awaitable[None]],
        metrics: Metrics,
        workers: int = 8,
        clock: Clock | None = None,
        group: Callable[[Key], Hashable] = lambda key: None,
        share: int = 0,
    ) -> None:
        self._name, self._process, self._metrics, self._workers = name, process, metrics, workers
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._ready: dict[Key, float] = {}  # to the time it was added at
        self._turns: OrderedDict[Hashable, deque[Key]] = OrderedDict()  # the same keys by group, the next group first
        self._group, self._share = group, min(share, workers // 2)
        self._busy: Counter[Hashable] = Counter()  # how many keys of each group are processed
        self._paced: dict[Hashable, float] = {}  # until when the keys that a group began are its due
        self._pause: Timer | None = None
        self._later: dict[Key, Timer] = {}
        self._running: dict[Key, float] = {}  # to the time its work began at
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = self._stopped = False
        metrics.depth.labels(name).set_function(lambda: len(self._ready))
        metrics.unfinished.labels(name).set_function(lambda: sum(self._ages()))
        metrics.longest.labels(name).set_function(lambda: max(self._ages(), default=0.0))
        for counter in (metrics.adds, metrics.retries):
            counter.labels(name)

    def start(self) -> None:
        """Begin to process keys."""
        self._open = True
        self._dispatch()

    async def stop(self, grace: float) -> bool:
        """Accept no more keys, drop waiting ones, and let running ones finish; cancel them after `grace` seconds.

        Returns:
            Whether all running keys finished without being cancelled.
        """
        self._open, self._stopped = False, True
        for timer in [*self._later.values(), *([self._pause] if self._pause else [])]:
            timer.cancel()
        self._later.clear()
        tasks = set(self._tasks)
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return not late

    def add(self, key: Key) -> None:
        """Process the key as soon as a worker is free."""
        if self._stopped:
            return
        if timer := self._later.pop(key, None):
            timer.cancel()
        if key in self._ready:
            return
        if key in self._running:
            if key not in self._again:
                self._again.add(key)
                self._metrics.adds.labels(self._name).inc()
            return
        self._metrics.adds.labels(self._name).inc()
        self._append(key)
        # Not immediately, so that a burst of adds is merged.
        asyncio.get_running_loop().call_soon(self._dispatch)

    def add_after(self, key: Key, seconds: float) -> None:
        """Process the key after so many seconds, or sooner if it is added again; the earliest time counts."""
        if self._stopped or key in self._ready or key in self._again:
            return
        if timer := self._later.get(key):
            if timer.when() <= self._clock.time() + seconds:
                return
            timer.cancel()
        self._later[key] = self._clock.call_later(seconds, self._due, key)

    def add_rate_limited(self, key: Key, at_least: float = 0.0) -> float:
        """Process the key after a time that doubles with each consecutive failure, from 50 ms to 5 min.

        Args:
            key: the key.
            at_least: seconds to wait at least, such as a Retry-After.

        Returns:
            The seconds.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._metrics.retries.labels(self._name).inc()
        delay = min(BASE_SECONDS * 2.0 ** min(failures, 32), MAX_SECONDS) * random.uniform(0.8, 1.0)
        delay = max(delay, at_least)
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Reset the back-off of a key that succeeded."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """The number of consecutive failures of the key."""
        return self._failures.get(key, 0)

    def _due(self, key: Key) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _ages(self) -> list[float]:
        now = self._clock.time()
        return [now - since for since in self._running.values()]

    def _append(self, key: Key) -> None:
        self._ready[key] = self._clock.time()
        self._turns.setdefault(self._group(key), deque()).append(key)

    def _next(self) -> tuple[Key, float] | None:
        """Take the oldest key of the group whose turn it is, and the time it was added at; None if none may begin."""
        is_alone = not self._share or (len(self._turns) == 1 and self._busy.keys() <= self._turns.keys())
        limit, now = self._workers - self._share if is_alone else self._share, self._clock.time()
        free = (group for group in self._turns if self._busy[group] < limit)
        group = next((each for each in free if is_alone or self._may_begin(each, now)), _NOBODY)
        if group is _NOBODY:
            return None
        keys = self._turns.pop(group)
        key = keys.popleft()
        if keys:
            self._turns[group] = keys
        self._paced = {each: end for each, end in self._paced.items() if end > now}
        self._paced[group] = min(self._paced.get(group, now), now + (BURST - 1) * PACE_SECONDS) + PACE_SECONDS
        return key, self._ready.pop(key)

    def _may_begin(self, group: Hashable, now: float) -> bool:
        """Whether a group that is not alone may begin a key; if it has to wait, for that it is tried again later."""
        if self._paced.get(group, now) < now + (BURST - 0.5) * PACE_SECONDS:
            return True
        if self._pause is None:
            self._pause = self._clock.call_later(PACE_SECONDS, self._continue)
        return False

    def _continue(self) -> None:
        self._pause = None
        self._dispatch()

    def _dispatch(self) -> None:
        while self._open and len(self._running) < self._workers and (taken := self._next()):
            key, added = taken
            now = self._clock.time()
            self._metrics.queue_seconds.labels(self._name).observe(now - added)
            self._running[key] = now
            self._busy[self._group(key)] += 1
            task = asyncio.get_running_loop().create_task(self._work(key), name=f"{self._name} {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, key: Key) -> None:
        try:
            await self._process(key)
        except Exception:
            log.exception("bug: processing %s raised an exception", key)
            self.add_rate_limited(key)
        finally:
            self._metrics.work_seconds.labels(self._name).observe(self._clock.time() - self._running.pop(key))
            group = self._group(key)
            self._busy[group] -= 1
            if not self._busy[group]:
                del self._busy[group]
            if key in self._again:
                self._again.discard(key)
                self._append(key)
                if timer := self._later.pop(key, None):
                    timer.cancel()
            self._dispatch()
