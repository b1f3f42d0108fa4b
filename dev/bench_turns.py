"""Two trainers that take turns: each in a process of its own, never both at work.

A trainer waits at the first step of each of its blocks until this end of the pipe says go, so that a machine that grows
slower or busier meanwhile does so for both. A block lasts from there to the beginning of the next one's first step: all
that the trainer does between its steps, such as loading rows and logging, is in it.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.uv import ROOT

if TYPE_CHECKING:
    from transformers import TrainerCallback

OWN_HEAP = "own"
DEADLINE_SECONDS = 900.0
"""Seconds without an answer after which a side counts as dead; the imports alone may need minutes on a busy machine."""


@dataclass(frozen=True)
class Block:
    """What one side did in one turn."""

    seconds: list[float]
    """Of each optimizer step."""
    cpu_seconds: float
    """Of all its threads, over the block."""
    tokens: int
    """That the model saw, padding left out."""


def heap_of(job: dict[str, Any]) -> dict[str, str]:
    """The heap settings of Hone's ranks, unless the job is to have the C library's own as a script without them."""
    if job.get("heap") == OWN_HEAP:
        return {}
    from hone_trainer.launcher.gang import CPU_HEAP

    return {"GLIBC_TUNABLES": CPU_HEAP}


class Side:
    """The process of one trainer, seen from the one that gives the turns.

    Args:
        name: of its log file.
        job: what `dev.bench_side` is to run.
        directory: where job and log are written.
        threads: threads of one operation.
    """

    def __init__(self, name: str, job: dict[str, Any], directory: Path, threads: int) -> None:
        self.log = directory / f"{name}.log"
        job_file = directory / f"{name}.json"
        job_file.write_text(json.dumps(job))
        self._reports, write = os.pipe()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= heap_of(job)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dev.bench_side", str(job_file), str(write)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[write],
            )
        os.close(write)
        self._rest = b""

    def ready(self) -> None:
        """Wait until its trainer stands before its first step."""
        self._answer()

    def block(self) -> Block:
        """Let it do one block, and wait for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        return Block(**self._answer())

    def end(self) -> None:
        """Kill it: its run is longer than what is measured."""
        self._process.kill()
        self._process.wait()
        os.close(self._reports)

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))
            read = os.read(self._reports, 1 << 16) if readable else b""
            if not read:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                why = "has ended" if readable else f"has not answered for {DEADLINE_SECONDS:.0f} s"
                raise RuntimeError(f"{self.log.stem} {why}; the end of {self.log}:\n{tail}")
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def take_turns(sides: list[Side], turns: int, report: Callable[[int], None]) -> list[list[Block]]:
    """`turns` blocks of each side, after one that is not counted; which side begins changes each time.

    Returns:
        By turn, the blocks in the order of `sides`.
    """
    for side in sides:
        side.ready()
    for side in sides:
        side.block()
    blocks_of_turns = []
    for turn in range(turns):
        order = sides if turn % 2 == 0 else sides[::-1]
        blocks = {id(side): side.block() for side in order}
        blocks_of_turns.append([blocks[id(side)] for side in sides])
        report(turn + 1)
    return blocks_of_turns


def turns_callback(steps: int, reports: int, tokens: Callable[[], int]) -> "TrainerCallback":
    """The trainer's end: waits for its turn before every `steps` optimizer steps, and reports each block.

    Args:
        steps: optimizer steps of a block.
        reports: file descriptor to write to; go is read from stdin.
        tokens: how many tokens the trainer has seen so far.
    """
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.last: float | None = None
            self.cpu = 0.0
            self.tokens = 0

        def on_step_begin(self, *_: object, **__: object) -> None:
            now = time.perf_counter()
            if self.last is None:
                self._wait({})
                return
            self.seconds.append(now - self.last)
            self.last = now
            if len(self.seconds) == steps:
                used, seen = time.process_time() - self.cpu, tokens() - self.tokens
                self._wait({"seconds": self.seconds, "cpu_seconds": used, "tokens": seen})

        def _wait(self, report: dict[str, Any]) -> None:
            os.write(reports, json.dumps(report).encode() + b"\n")
            if not sys.stdin.readline():
                os._exit(0)
            self.seconds, self.tokens = [], tokens()
            self.cpu, self.last = time.process_time(), time.perf_counter()

    return Turns()
