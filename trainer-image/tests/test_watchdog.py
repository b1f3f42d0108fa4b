"""The watchdog: when a pod is stuck, what its ranks answer, and whom the others wait for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_trainer.launcher import watchdog
from hone_trainer.launcher.watchdog import Moves, observe, stuck, suspect
from hone_trainer.protocol import host
from hone_trainer.protocol.status import RankStatus, StatusDir

FLOOR = 15.0


def looks(*reports: tuple[float, dict[int, tuple[int, str]]]) -> Moves:
    """What is known after looks at these times, each with the step and stage of every rank."""
    moves = Moves()
    for now, ranks in reports:
        statuses = {rank: RankStatus(rank=rank, step=step, stage=stage) for rank, (step, stage) in ranks.items()}
        moves = observe(moves, statuses, now)
    return moves


def both(step: int, stage: str = "Training") -> dict[int, tuple[int, str]]:
    """Two ranks at the same place."""
    return {0: (step, stage), 1: (step, stage)}


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        pytest.param([(0, {})], None, id="no rank has told anything"),
        pytest.param([(0, both(0, "Starting")), (999, both(0, "Starting"))], None, id="starting takes its time"),
        pytest.param([(0, both(4, "Saving")), (999, both(4, "Saving"))], None, id="so does saving"),
        pytest.param([(0, both(4, "Evaluating")), (999, both(4, "Evaluating"))], None, id="and evaluating"),
        pytest.param([(0, both(0)), (15, both(0))], None, id="the first step, within the floor"),
        pytest.param([(0, both(0)), (16, both(0))], 16, id="the first step, beyond it"),
        pytest.param([(0, both(0, "Probing")), (16, both(0, "Probing"))], 16, id="the probe is watched too"),
        pytest.param([(0, both(0)), (10, both(1)), (24, both(1))], None, id="the clock restarts with each step"),
        pytest.param(
            [(0, both(0)), (10, {0: (1, "Training"), 1: (0, "Training")}), (20, both(0) | {0: (1, "Training")})],
            None,
            id="one rank that moved is enough",
        ),
        pytest.param(
            [(0, both(0)), (5, both(1)), (10, both(2)), (59, both(2))], None, id="long steps: ten of them are allowed"
        ),
        pytest.param(
            [(0, both(0)), (5, both(1)), (10, both(2)), (61, both(2))], 51, id="long steps: beyond ten of them"
        ),
        pytest.param(
            [(0, both(0)), (1, both(1)), (2, both(2)), (50, both(3)), (64, both(3))],
            None,
            id="one slow step does not change the median",
        ),
        pytest.param(
            [(0, both(4)), (1, both(5)), (2, both(5, "Saving")), (300, both(5)), (310, both(5))],
            None,
            id="after saving, the clock restarts",
        ),
        pytest.param(
            [(0, both(4)), (1, both(5)), (2, both(5, "Saving")), (300, both(5)), (316, both(5))],
            16,
            id="a save is no step: it does not lengthen the median",
        ),
        pytest.param(
            [(0, {0: (0, "Training"), 1: (0, "Starting")}), (16, {0: (0, "Training"), 1: (0, "Starting")})],
            16,
            id="one that never got as far as the others excuses nobody",
        ),
        pytest.param([(0, both(9)), (99, both(9, "Done"))], None, id="done is done"),
    ],
)
def test_when_a_pod_is_stuck(reports: list, expected: float | None) -> None:
    assert stuck(looks(*reports), FLOOR) == expected


def test_many_fast_steps_between_two_looks_are_each_fast() -> None:
    moves = looks(*[(t, both(100 * t)) for t in range(5)])
    assert moves.durations == (0.01,) * 4
    assert watchdog.limit(moves, FLOOR) == FLOOR


def stacks(*innermost: str) -> str:
    """What faulthandler writes of a rank with a helper thread, whose main thread is there."""
    frames = "".join(f"  {frame}\n" for frame in innermost)
    return (
        'Thread 0x00007f01 (most recent call first):\n  File "/py/threading.py", line 331 in wait\n\n'
        f"Current thread 0x00007f02 (most recent call first):\n{frames}"
    )


ALL_REDUCE = stacks(
    'File "/site/torch/distributed/distributed_c10d.py", line 2934 in all_reduce',
    'File "/site/hone_trainer/training/collectives.py", line 14 in highest',
)
BACKWARD = stacks('File "/site/torch/autograd/graph.py", line 823 in _engine_run_backward')
GPU_WAIT = stacks('File "/site/hone_trainer/training/callbacks.py", line 44 in take')
READING = stacks('File "/site/datasets/arrow_dataset.py", line 90 in __getitem__', *ALL_REDUCE.splitlines()[-2:])


@pytest.mark.parametrize(
    ("places", "world_size", "expected"),
    [
        pytest.param({0: ALL_REDUCE, 1: READING}, 2, 1, id="the one that reads data, whatever called it"),
        pytest.param({0: READING, 1: BACKWARD, 2: GPU_WAIT}, 3, 0, id="others wait in backward, or for the GPU"),
        pytest.param({0: ALL_REDUCE, 1: ""}, 2, 1, id="the one that does not answer"),
        pytest.param({0: READING, 1: ""}, 2, 1, id="which is stranger than one that is elsewhere"),
        pytest.param({0: ALL_REDUCE, 1: BACKWARD}, 4, None, id="all wait: for another pod's"),
        pytest.param({0: BACKWARD}, 1, 0, id="one alone waits for nobody"),
        pytest.param({}, 2, None, id="none is left to ask"),
    ],
)
def test_whom_the_others_wait_for(places: dict[int, str], world_size: int, expected: int | None) -> None:
    assert suspect(places, world_size) == expected


@pytest.mark.parametrize(
    "where", [ALL_REDUCE, BACKWARD, GPU_WAIT, *(stacks(line) for line in ALL_REDUCE.splitlines()[-2:])]
)
def test_a_rank_that_waits_for_others_is_recognized_by_its_innermost_frame(where: str) -> None:
    assert watchdog.waits(where)


def test_a_rank_that_reads_data_waits_for_nobody() -> None:
    assert not watchdog.waits(READING)


def test_the_files_of_frames_that_wait_are_there() -> None:
    root = Path(watchdog.__file__).parents[1]
    assert all((root / "training" / name).is_file() for name in ("collectives.py", "callbacks.py"))


def test_a_place_in_words() -> None:
    assert watchdog.place(READING) == "__getitem__ (arrow_dataset.py:90)"
    assert watchdog.place("") == "an unknown place"


RANK = """
import faulthandler, os, signal, sys, threading, time
def asleep():
    time.sleep(600)
if os.environ["REGISTER"]:
    faulthandler.register(signal.SIGUSR1, file=open(sys.argv[1], "wb", buffering=0), all_threads=True)
threading.Thread(target=asleep, daemon=True).start()
print("ready", flush=True)
asleep()
"""


@pytest.fixture
def ranks() -> Iterator[list[subprocess.Popen]]:
    """Processes to be ended with the test."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_ranks_are_asked_where_they_are(tmp_path: Path, ranks: list[subprocess.Popen]) -> None:
    status = StatusDir(tmp_path)
    for rank, register in enumerate(("1", "1", "")):
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(status.stacks_file(rank))],
                env={**os.environ, "RANK": str(rank), "REGISTER": register},
                stdout=subprocess.PIPE,
            )
        )
        assert ranks[-1].stdout.readline() == b"ready\n"
    pids = {rank: process.pid for rank, process in enumerate(ranks)}
    assert pids.items() <= host.rank_processes(os.getpid()).items()
    ranks[1].send_signal(signal.SIGSTOP)

    began = time.monotonic()
    stacks = watchdog.ask_for_stacks(status, pids, seconds=2)

    assert time.monotonic() - began < 10
    assert stacks[0].count("most recent call first") == 2, "every thread"
    assert watchdog.place(stacks[0]).startswith("asleep")
    assert (stacks[1], stacks[2]) == ("", ""), "one is stopped, one has not registered for the signal"
    assert ranks[2].poll() is None, "and does not die of it"
    assert "rank 1 ===\n(did not answer" in watchdog.report(stacks)


def test_a_forgotten_rank_leaves_nothing_but_the_stop_flag(tmp_path: Path) -> None:
    status = StatusDir(tmp_path)
    status.write_status(RankStatus(rank=1, step=7))
    status.write_failures({1: {"exitCode": -9, "time": 1.0}})
    status.stacks_file(1).write_text("Thread")
    status.raise_stop()
    status.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["stop"]
