"""A rank's heartbeat: what it gets done within an optimizer step, and how long that usually takes, for the launcher.

A step of a large model takes minutes, and one in which the model generates answers takes longer. Whether its rank hangs
is seen by its parts: micro-batches, generated answers, batches of an evaluation.
"""

import statistics
import time
from collections import defaultdict, deque

from hone_trainer.protocol.status import Beat, StatusDir

STEP = "step"
"""The part that ends an optimizer step."""
_RECENT = 20
_WRITE_SECONDS = 1.0


class Beats:
    """Counts the parts of one rank. Call it with the kind of each part that is done.

    How long a part takes depends on the one before, too: the first micro-batch of a step may come after rewards. So the
    usual time is that of the slowest pair of kinds.

    Args:
        status: where to report them, once a second and when the first step is done.
        rank: whose.
    """

    def __init__(self, status: StatusDir, rank: int) -> None:
        self._status = status
        self._rank = rank
        self._count = 0
        self._before: str | None = None
        self._at = time.monotonic()
        self._written = 0.0
        self._durations: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._warm = False

    def __call__(self, kind: str | None) -> None:
        """Count a part.

        Args:
            kind: what is done; None for what says nothing of how long other parts take, such as a save.
        """
        now = time.monotonic()
        if kind and self._before:
            self._durations[self._before, kind].append(now - self._at)
        # The limit falls with the end of the first step. A rank that hangs right after it reports nothing more.
        warmed, self._warm = kind == STEP and not self._warm, self._warm or kind == STEP
        self._count += 1
        self._before, self._at = kind, now
        if warmed or now - self._written >= _WRITE_SECONDS:
            self._written = now
            self._status.write_beat(Beat(rank=self._rank, count=self._count, usual_seconds=self._usual()))

    def _usual(self) -> float | None:
        """Seconds; None before the first optimizer step is done, which also compiles and connects."""
        if not self._warm:
            return None
        return max((statistics.median(durations) for durations in self._durations.values()), default=0.0)
