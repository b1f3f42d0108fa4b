"""What the runtime's unit tests share: a clock that a test moves, and short manifests."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from hone.core.names import OWNER_ANNOTATION, UID_LABEL


class Timer:
    """A callback that is due at a time."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.canceled = at, callback, False

    def cancel(self) -> None:
        self.canceled = True

    def when(self) -> float:
        return self.at


class FakeClock:
    """Time that passes only by `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(self.now + delay, lambda: callback(*args))
        heapq.heappush(self._timers, (timer.at, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what falls due, in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            if not timer.canceled:
                timer.callback()
        self.now = end


def pod(uid: str, owner_uid: str = "job-uid", phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    """A pod of a resource."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": uid,
            "namespace": "ns",
            "uid": uid,
            "labels": {UID_LABEL: owner_uid},
            "annotations": {OWNER_ANNOTATION: "FineTuneJob/sft"},
            **metadata,
        },
        "status": {"phase": phase},
    }
