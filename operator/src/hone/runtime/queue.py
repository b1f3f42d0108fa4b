"""A work queue: fair between groups, one worker per key, duplicates merged, back-off, delayed adds, drained on stop."""

import asyncio
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from hone.runtime.metrics import Metrics

Key = TypeVar("Key", bound=Hashable)
BASE_SECONDS = 0.05
MAX_SECONDS = 300.0
MIN_FOR_SPARE = 4
"""Of so many workers, one is kept free for a group that has none."""
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


class _Waiting(Generic[Key]):
    """The waiting keys of a group: those of events and those of a listing take turns, each the oldest first."""

    def __init__(self) -> None:
        self._of_events: OrderedDict[Key, None] = OrderedDict()
        self._of_listing: OrderedDict[Key, None] = OrderedDict()
        self._is_turn_of_listing = False

    def __bool__(self) -> bool:
        return bool(self._of_events or self._of_listing)

    def add(self, key: Key, listed: bool) -> None:
        """Append a key; one that waits may move from those of a listing to those of events, but not back."""
        if not listed:
            self._of_listing.pop(key, None)
            self._of_events[key] = None
        elif key not in self._of_events:
            self._of_listing[key] = None

    def take(self) -> Key:
        """Remove the next key."""
        is_listed = bool(self._of_listing) and (self._is_turn_of_listing or not self._of_events)
        self._is_turn_of_listing = not is_listed
        return (self._of_listing if is_listed else self._of_events).popitem(last=False)[0]


class WorkQueue(Generic[Key]):
    """Hands keys to `process`, at most `workers` at a time and never the same key twice at a time.

    A key that is added while it waits is merged with the waiting one; a key that is added while it is processed is
    processed once more afterwards. The groups take turns, so that the keys of one do not wait for all of another's.
    Where several have work, each has a part of the workers, so that a key takes turns on the event loop with few; and
    the last free worker is left to a group that has none, so that its key finds one at once.
    Not thread-safe: call it from the loop in which it was started.

    Args:
        name: the label `name` of its metrics.
        process: processes one key; must not raise (an exception is logged, and the key backs off).
        metrics: where its metrics go.
        workers: maximum number of keys that are processed at a time.
        clock: the running event loop, by default.
        group: the group of a key, such as its namespace; by default, all are in one.
        share: maximum number of keys of a group that are processed at a time while another group has all of its keys
            processed. Where all have keys that wait, it is the equal part of the workers if that is more. 0: no limits.
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
        self._turns: OrderedDict[Hashable, _Waiting[Key]] = OrderedDict()  # the same, the next group first
        self._group, self._share = group, share
        self._busy: Counter[Hashable] = Counter()  # how many keys of each group are processed
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
        for timer in self._later.values():
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

    def add(self, key: Key, listed: bool = False) -> None:
        """Process the key as soon as a worker is free.

        Args:
            key: the key.
            listed: whether only a listing names it. Of such keys many come at once, and most need no work.
        """
        if self._stopped:
            return
        if timer := self._later.pop(key, None):
            timer.cancel()
        if key in self._ready:
            if not listed:
                self._turns[self._group(key)].add(key, listed)
            return
        if key in self._running:
            if key not in self._again:
                self._again.add(key)
                self._metrics.adds.labels(self._name).inc()
            return
        self._metrics.adds.labels(self._name).inc()
        self._append(key, listed)
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
        # A copy: metrics are rendered in a thread.
        return [now - since for since in [*self._running.values()]]

    def _append(self, key: Key, listed: bool = False) -> None:
        self._ready[key] = self._clock.time()
        self._turns.setdefault(self._group(key), _Waiting()).add(key, listed)

    def _next(self) -> tuple[Key, float] | None:
        """Take the next key of the group whose turn it is, and the time it was added at; None if none may begin."""
        group = next((each for each in self._turns if self._may_begin(each)), _NOBODY)
        if group is _NOBODY:
            return None
        keys = self._turns.pop(group)
        key = keys.take()
        if keys:
            self._turns[group] = keys
        return key, self._ready.pop(key)

    def _may_begin(self, group: Hashable) -> bool:
        """Whether one more key of a group may be processed."""
        busy = self._busy[group]
        if not self._share or not busy:
            return True
        limit = max(self._share, self._workers // len(self._turns))
        if any(each not in self._turns for each in self._busy):
            limit = self._share  # Few keys on the event loop delay those of that group least.
        spare = 1 if self._workers >= MIN_FOR_SPARE else 0
        return busy < limit and len(self._running) < self._workers - spare

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
