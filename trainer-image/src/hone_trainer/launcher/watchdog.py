"""The watchdog: the rule by which ranks hang, from what they report and from what their processes do.

While ranks train or evaluate, each part of a step that is done is a move (`hone_trainer/protocol/beats.py`), and a pod
hangs when none of its ranks moves. Why one takes long does not matter. While a rank loads or saves, no part is done for
a long time: then it moves as long as its processes compute, read or write, and each rank is judged by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.deadlines import save_seconds, usual_seconds
from hone_trainer.protocol.host import Usage
from hone_trainer.protocol.status import Beat, RankStatus

BY_PARTS = frozenset({"Training", "Probing", "Searching", "Evaluating"})
"""Stages in which parts of a step are expected."""
LOADING, SAVING = "Starting", "Saving"
"""Stages that are judged by what processes do. A rank that has reported nothing yet is loading."""
USAGE_SECONDS = 5.0
"""How often to observe what processes do."""
MOVED_CPU_SECONDS = 0.02 * USAGE_SECONDS
"""CPU time between two observations of a process that does something: threads that only wait take less."""
MOVED_BYTES = 1 << 16
"""The same of bytes that it has read and written."""


@dataclass(frozen=True)
class Moves:
    """What is known of a pod's ranks.

    Attributes:
        now: the time of the last observation, in seconds.
        last: by rank, the step, stage and count of parts it was last seen with, and since when.
        usage: by rank, what its processes had used at the last observation of it.
        used: by rank, when its processes were last seen doing something.
        usual: seconds that the slowest kind of parts takes on any rank; None before the first step is done.
    """

    now: float = 0.0
    last: Mapping[int, tuple[int, str, int, float]] = field(default_factory=dict)
    usage: Mapping[int, Usage] = field(default_factory=dict)
    used: Mapping[int, float] = field(default_factory=dict)
    usual: float | None = None


@dataclass(frozen=True)
class Stuck:
    """Ranks that do not move.

    Attributes:
        ranks: which; those that wait for others are among them.
        idle: for how many seconds.
        limit: the seconds that they had.
        stage: what they are doing; None: training, in which the pod is judged as a whole.
    """

    ranks: tuple[int, ...]
    idle: float
    limit: float
    stage: str | None = None


def observe(moves: Moves, statuses: Mapping[int, RankStatus], beats: Mapping[int, Beat], now: float) -> Moves:
    """What is known after ranks have reported.

    Args:
        moves: what was known.
        statuses, beats: what the ranks of this pod report, by rank.
        now: the time in seconds, on a clock of any origin.
    """
    last = dict(moves.last)
    for rank, status in statuses.items():
        count = beats[rank].count if rank in beats else 0
        if (status.step, status.stage, count) != last.get(rank, ())[:3]:
            last[rank] = (status.step, status.stage, count, now)
    usual = max((beat.usual_seconds for beat in beats.values() if beat.usual_seconds is not None), default=None)
    return replace(moves, now=now, last=last, usual=usual)


def observe_usage(moves: Moves, usage: Mapping[int, Usage], now: float) -> Moves:
    """What is known after a look at the ranks' processes, `USAGE_SECONDS` after the last one.

    Args:
        moves: what was known.
        usage: what each rank's processes have used so far.
        now: the time in seconds, on the same clock.
    """
    used = {
        rank: moves.used[rank] if rank in moves.usage and not _moved(moves.usage[rank], total) else now
        for rank, total in usage.items()
    }
    return replace(moves, now=now, usage=dict(usage), used=used)


def excuse(moves: Moves, ranks: tuple[int, ...]) -> Moves:
    """What is known if these ranks only wait for others: their time begins again."""
    return replace(moves, used={**moves.used, **dict.fromkeys(ranks, moves.now)})


def stuck(moves: Moves, config: RunConfig, plan: Plan) -> Stuck | None:
    """The ranks of the pod that have not moved for too long, or None.

    Args:
        moves: what was observed.
        config, plan: the run, from which the limits follow.
    """
    stages = {rank: stage for rank, (_, stage, _, _) in moves.last.items()}
    for stage, limit in ((LOADING, config.hang_floor_seconds), (SAVING, save_seconds(config, plan))):
        # A save begins with the stage: what the processes did before is no sign of it.
        idle = {
            rank: moves.now - max(at, moves.last[rank][3] if rank in moves.last else at)
            for rank, at in moves.used.items()
            if stages.get(rank, LOADING) == stage
        }
        if late := {rank: seconds for rank, seconds in idle.items() if seconds > limit}:
            return Stuck(tuple(sorted(late)), max(late.values()), limit, stage)
    # A rank that is still loading does not excuse the others: they cannot train without it for long.
    if not set(stages.values()) & BY_PARTS or set(stages.values()) - BY_PARTS - {LOADING}:
        return None
    idle_for = moves.now - max(since for *_, since in moves.last.values())
    limit = usual_seconds(config, moves.usual)
    return Stuck(tuple(sorted(stages)), idle_for, limit) if idle_for > limit else None


def _moved(before: Usage, after: Usage) -> bool:
    # A process of the rank that has ended takes its share with it: that is a move, too.
    cpu, moved = after.cpu_seconds - before.cpu_seconds, after.io_bytes - before.io_bytes
    return abs(cpu) >= MOVED_CPU_SECONDS or abs(moved) >= MOVED_BYTES
