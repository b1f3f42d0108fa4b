"""Where ranks are: their stack traces, asked for by SIGUSR1, and which of them the others probably wait for."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

from hone_trainer.protocol.status import StatusDir

ANSWER_SECONDS = 15.0
"""How long ranks have for writing their stacks."""

# Innermost frames of a rank that waits for its peers: in a collective, in a backward pass, which ends with DDP's, or
# where the host first waits for what NCCL was asked to do.
_WAITS = re.compile(
    r"torch/distributed/|torch/nn/parallel/distributed\.py|deepspeed/comm/|"
    r'torch/autograd/graph\.py", line \d+ in _engine_run_backward|hone_trainer/training/(collectives|callbacks)\.py'
)
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)')


def ask_for_stacks(status: StatusDir, pids: dict[int, int], seconds: float = ANSWER_SECONDS) -> dict[int, str]:
    """The stacks of every thread of each rank, by rank; empty for a rank that does not answer. Can be asked again.

    A rank also answers from within a C function, but not while the kernel blocks or has stopped it. No signal is sent
    to a rank that has not yet registered for it: the signal would kill it.

    Args:
        status: where the ranks write.
        pids: the ranks' processes.
        seconds: how long to wait for them.
    """
    answers = dict.fromkeys(pids, "")
    pending = {rank: status.stacks_file(rank) for rank in pids if status.stacks_file(rank).exists()}
    before = {rank: len(_read(file)) for rank, file in pending.items()}
    for rank in pending:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[rank], signal.SIGUSR1)
    deadline = time.monotonic() + seconds
    while pending and time.monotonic() < deadline:
        time.sleep(0.2)
        for rank, file in list(pending.items()):
            text = _read(file)[before[rank] :]
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
