"""The watchdog: detects a pod whose ranks no longer move, collects the stacks of each, and names a suspect.

A rank moves when it finishes a step or enters another stage. Why a step takes long does not matter: an old
status is no sign of a hang until the limit has passed.
"""

import os
import re
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from hone_trainer.protocol.status import RankStatus, StatusDir

WATCHED = frozenset({"Training", "Probing"})
"""Stages in which steps are expected. Starting, saving and evaluating take as long as they take."""
MEDIAN_STEPS = 10
"""A pod is stuck after so many median steps, or after the floor, whichever is longer."""
ANSWER_SECONDS = 15.0
"""How long ranks have for writing their stacks."""

_RECENT_STEPS = 20
# Innermost frames of a rank that waits for its peers: in a collective, in a backward pass, which ends with DDP's, or
# where the host first waits for what NCCL was asked to do.
_WAITS = re.compile(
    r"torch/distributed/|torch/nn/parallel/distributed\.py|deepspeed/comm/|"
    r'torch/autograd/graph\.py", line \d+ in _engine_run_backward|hone_trainer/training/(collectives|callbacks)\.py'
)
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)')


@dataclass(frozen=True)
class Moves:
    """What is known of a pod's ranks.

    Attributes:
        now: the time of the last observation, in seconds.
        last: by rank, the step and stage it was last seen in, and since when.
        durations: seconds of recent steps of the pod's lowest rank.
    """

    now: float = 0.0
    last: dict[int, tuple[int, str, float]] = field(default_factory=dict)
    durations: tuple[float, ...] = ()


def observe(moves: Moves, statuses: dict[int, RankStatus], now: float) -> Moves:
    """What is known after another observation.

    Args:
        moves: what was known.
        statuses: what the ranks of this pod report, by rank.
        now: the time in seconds, on a clock of any origin.
    """
    last, durations = dict(moves.last), moves.durations
    for rank, status in statuses.items():
        step, stage, since = last.get(rank, (status.step, "", now))
        if (status.step, status.stage) == (step, stage):
            continue
        if rank == min(statuses) and status.step > step and stage in WATCHED:
            durations = (*durations, (now - since) / (status.step - step))[-_RECENT_STEPS:]
        last[rank] = (status.step, status.stage, now)
    return Moves(now, last, durations)


def limit(moves: Moves, floor: float) -> float:
    """Seconds after which ranks that do not move are stuck; the floor alone before the first step is done."""
    return max(MEDIAN_STEPS * statistics.median(moves.durations), floor) if moves.durations else floor


def stuck(moves: Moves, floor: float) -> float | None:
    """For how many seconds no rank of the pod has moved, where that is too long; else None.

    Args:
        moves: what was observed.
        floor: the least time in seconds that a step is given.
    """
    stages = {stage for _, stage, _ in moves.last.values()}
    # A rank that is still starting does not excuse the others: they cannot train without it for long.
    if not stages & WATCHED or stages - WATCHED - {"Starting"}:
        return None
    idle = moves.now - max(since for _, _, since in moves.last.values())
    return idle if idle > limit(moves, floor) else None


def ask_for_stacks(status: StatusDir, pids: dict[int, int], seconds: float = ANSWER_SECONDS) -> dict[int, str]:
    """The stacks of every thread of each rank, by rank; empty for a rank that does not answer.

    A rank also answers from within a C function, but not while the kernel blocks or has stopped it. No signal is sent
    to a rank that has not yet registered for it: the signal would kill it.

    Args:
        status: where the ranks write.
        pids: the ranks' processes.
        seconds: how long to wait for them.
    """
    answers = dict.fromkeys(pids, "")
    pending = {rank: status.stacks_file(rank) for rank in pids if status.stacks_file(rank).exists()}
    for rank in pending:
        os.kill(pids[rank], signal.SIGUSR1)
    deadline = time.monotonic() + seconds
    while pending and time.monotonic() < deadline:
        time.sleep(0.2)
        for rank, file in list(pending.items()):
            text = _read(file)
            # Whole once it no longer grows.
            if text and text == answers[rank]:
                del pending[rank]
            answers[rank] = text
    return answers


def suspect(stacks: dict[int, str], world_size: int) -> int | None:
    """The rank that the others probably wait for: one that does not answer, or else is not waiting itself.

    Args:
        stacks: what each rank of this pod answered.
        world_size: ranks of the whole gang; where there is one, it is the suspect.
    """
    if world_size == 1:
        return next(iter(stacks), None)
    silent = [rank for rank, text in sorted(stacks.items()) if not text]
    elsewhere = [rank for rank, text in sorted(stacks.items()) if text and not waits(text)]
    return next(iter([*silent, *elsewhere]), None)


def waits(stacks: str) -> bool:
    """Whether the main thread is in something that only ends when other ranks come to it as well."""
    return bool(_WAITS.search(next(iter(main_frames(stacks)), "")))


def main_frames(stacks: str) -> list[str]:
    """The main thread's frames as faulthandler writes them, the innermost first: it is the last of the threads."""
    return [line.strip() for line in stacks.strip().rpartition("\n\n")[2].splitlines() if _FRAME.search(line)]


def place(stacks: str) -> str:
    """Where the main thread is, in words: `run (data.py:12)`."""
    for frame in main_frames(stacks):
        if match := _FRAME.search(frame):
            return f"{match['name']} ({Path(match['file']).name}:{match['line']})"
    return "an unknown place"


def report(stacks: dict[int, str]) -> str:
    """All ranks' stacks as one text."""
    none = "(did not answer SIGUSR1)"
    return "\n\n".join(f"=== rank {rank} ===\n{text.strip() or none}" for rank, text in sorted(stacks.items())) + "\n"


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
