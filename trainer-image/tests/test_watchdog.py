"""The watchdog: when a pod is stuck, what its ranks answer, and whom the others wait for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from hone.contract.plan import Plan
from hone.contract.runconfig import Attempt, DataPaths, JobIdentity, RunConfig
from hone_trainer.launcher import stack_traces
from hone_trainer.launcher.attempt import PodAttempt
from hone_trainer.launcher.stack_traces import suspect
from hone_trainer.launcher.supervisor import Supervisor
from hone_trainer.launcher.watchdog import Moves, excuse, observe, observe_usage, stuck
from hone_trainer.protocol import host
from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.host import Usage
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.status import BUDGET, Beat, RankStatus, StatusDir

RUN = RunConfig(
    job=JobIdentity(namespace="n", name="j", uid="u"),
    model_name="m",
    data=DataPaths(train="t"),
    hang_floor_seconds=15,
)
PLAN = Plan.model_construct(checkpoint_seconds=10.0)
"""With these, a save may be still for 45 s."""

Ranks = dict[int, tuple[int, str] | tuple[int, str, int]]


def looks(*reports: tuple[float, Ranks], usual: float | None = 1.0) -> Moves:
    """What is known after looks at these times, each with the step, stage and parts of every rank."""
    moves = Moves()
    for now, ranks in reports:
        statuses = {rank: RankStatus(rank=rank, step=step, stage=stage) for rank, (step, stage, *_) in ranks.items()}
        beats = {rank: Beat(rank=rank, count=sum(parts), usual_seconds=usual) for rank, (_, _, *parts) in ranks.items()}
        moves = observe(moves, statuses, beats, now)
    return moves


def both(step: int, stage: str = "Training", parts: int = 0) -> Ranks:
    """Two ranks at the same place."""
    return {0: (step, stage, parts), 1: (step, stage, parts)}


@pytest.mark.parametrize(
    ("reports", "usual", "expected"),
    [
        pytest.param([(0, {})], None, None, id="no rank has told anything"),
        pytest.param([(0, both(0)), (150, both(0))], None, None, id="the first step has ten times the floor"),
        pytest.param([(0, both(0)), (151, both(0))], None, 151, id="the first step, beyond it"),
        pytest.param([(0, both(1)), (16, both(1))], 1, 16, id="later ones have the floor"),
        pytest.param([(0, both(1)), (565, both(1))], 60, None, id="or ten times what is usual"),
        pytest.param([(0, both(1)), (601, both(1))], 60, 601, id="beyond ten times what is usual"),
        pytest.param([(0, both(1)), (10, both(1, parts=1)), (24, both(1, parts=1))], 1, None, id="a part is a move"),
        pytest.param(
            [(0, both(1, "Evaluating")), (10, both(1, "Evaluating", 1)), (24, both(1, "Evaluating", 1))],
            1,
            None,
            id="so is one of an evaluation",
        ),
        pytest.param([(0, both(4, "Evaluating")), (16, both(4, "Evaluating"))], 1, 16, id="evaluations are watched"),
        pytest.param([(0, both(0, "Probing")), (151, both(0, "Probing"))], None, 151, id="the probe is watched too"),
        pytest.param([(0, both(0)), (10, both(1)), (24, both(1))], 1, None, id="the clock restarts with each step"),
        pytest.param(
            [(0, both(0)), (10, {0: (1, "Training"), 1: (0, "Training")}), (20, both(0) | {0: (1, "Training")})],
            1,
            None,
            id="one rank that moved is enough",
        ),
        pytest.param(
            [(0, both(4)), (1, both(5)), (2, both(5, "Saving")), (300, both(5)), (310, both(5))],
            1,
            None,
            id="after saving, the clock restarts",
        ),
        pytest.param(
            [(0, {0: (1, "Training"), 1: (0, "Starting")}), (16, {0: (1, "Training"), 1: (0, "Starting")})],
            1,
            16,
            id="one that never got as far as the others excuses nobody",
        ),
        pytest.param([(0, both(9)), (99, both(9, "Done"))], 1, None, id="done is done"),
    ],
)
def test_when_a_pod_is_stuck_in_a_step(
    reports: list[tuple[float, Ranks]], usual: float | None, expected: float | None
) -> None:
    hang = stuck(looks(*reports, usual=usual), RUN, PLAN)
    assert (hang and hang.idle) == expected


BUSY, READS, STILL = Usage(1.0, 0), Usage(0.0, 100_000), Usage(0.01, 100)
"""What a process uses in 5 s: it computes, it reads a slow volume, its threads only wait."""


def watched(stage: str | None, *usages: dict[int, Usage]) -> Moves:
    """What is known of ranks in a stage after they have used this in each 5 s."""
    moves, total = Moves(), {rank: Usage() for rank in usages[0]}
    for number, usage in enumerate(({rank: Usage() for rank in total}, *usages)):
        if stage is not None:
            statuses = {rank: RankStatus(rank=rank, step=6, stage=stage) for rank in total}
            moves = observe(moves, statuses, {}, 5.0 * number)
        total = {
            rank: Usage(before.cpu_seconds + usage[rank].cpu_seconds, before.io_bytes + usage[rank].io_bytes)
            for rank, before in total.items()
        }
        moves = observe_usage(moves, total, 5.0 * number)
    return moves


@pytest.mark.parametrize(
    ("stage", "usages", "ranks"),
    [
        pytest.param("Starting", [{0: BUSY, 1: READS}] * 99, None, id="a long load"),
        pytest.param("Starting", [{0: STILL, 1: STILL}] * 3, None, id="a short rest"),
        pytest.param("Starting", [{0: BUSY, 1: STILL}] * 4, (1,), id="a load that is stuck, whatever others do"),
        pytest.param(None, [{0: BUSY, 1: STILL}] * 4, (1,), id="before it has told anything"),
        pytest.param("Saving", [{0: STILL, 1: STILL}] * 9, None, id="a flush within what the plan expects"),
        pytest.param("Saving", [{0: STILL, 1: STILL}] * 10, (0, 1), id="a save that is stuck"),
        pytest.param("Saving", [{0: READS, 1: BUSY}] * 99, None, id="a slow save"),
        pytest.param("Training", [{0: STILL, 1: STILL}] * 9, None, id="training is judged by its parts"),
    ],
)
def test_when_a_rank_is_stuck_in_a_load_or_a_save(
    stage: str | None, usages: list[dict[int, Usage]], ranks: tuple[int, ...] | None
) -> None:
    hang = stuck(watched(stage, *usages), RUN, PLAN)
    assert (hang and hang.ranks) == ranks
    assert hang is None or hang.stage == (stage or "Starting")


def test_a_rank_that_only_waits_for_others_has_its_time_again() -> None:
    moves = watched("Starting", *[{0: STILL, 1: BUSY}] * 4)
    assert stuck(excuse(moves, (0,)), RUN, PLAN) is None
    later = observe_usage(excuse(moves, (0,)), moves.usage, moves.now + 16)
    assert stuck(later, RUN, PLAN).ranks == (0, 1)


def test_a_process_that_ends_is_a_move() -> None:
    moves = watched("Starting", *[{0: STILL}] * 4, {0: Usage(-3.0, 0)})
    assert stuck(moves, RUN, PLAN) is None


def test_what_processes_use_is_counted_with_their_children() -> None:
    work = "import os,sys; sum(range(10**7)); sys.stdout.write('x' * 200_000); sys.stdout.flush(); os.read(0, 1)"
    shell = f'{sys.executable} -c "{work}"; true'
    with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        parent.stdout.read(200_000)
        usage = host.usage({7: parent.pid, 8: 2**22 + 1})
        parent.kill()
    assert usage[7].cpu_seconds > 0.05 and usage[7].io_bytes >= 200_000
    assert usage[8] == Usage(), "it is gone"


# The heartbeat.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def beat(status: StatusDir, clock: list[float], *parts: tuple[str | None, float]) -> Beat:
    """What is known after parts of these kinds and seconds."""
    beats = Beats(status, 3)
    for kind, seconds in parts:
        clock[0] += seconds
        beats(kind)
    return status.beats()[3]


STEP_OF_RL = [("answers", 100.0), ("answers", 90.0), ("micro-batch", 50.0), ("micro-batch", 2.0), ("step", 3.0)]


def test_nothing_is_usual_before_a_step_is_done(tmp_path: Path, clock: list[float]) -> None:
    assert beat(StatusDir(tmp_path), clock, *STEP_OF_RL[:-1]) == Beat(rank=3, count=4, usual_seconds=None)


def test_the_slowest_kind_of_parts_is_what_is_usual(tmp_path: Path, clock: list[float]) -> None:
    """Answers that follow a step: the median over steps of any kind of part would be 2 to 50 s."""
    assert beat(StatusDir(tmp_path), clock, *STEP_OF_RL * 3) == Beat(rank=3, count=15, usual_seconds=100.0)


def test_one_slow_part_changes_nothing(tmp_path: Path, clock: list[float]) -> None:
    parts = [("micro-batch", 2.0), ("step", 2.0)] * 5
    assert beat(StatusDir(tmp_path), clock, *parts, ("micro-batch", 500.0), ("step", 2.0)).usual_seconds == 2.0


def test_a_save_is_no_part_of_a_step(tmp_path: Path, clock: list[float]) -> None:
    parts = [("micro-batch", 2.0), ("step", 2.0), (None, 900.0)] * 5
    assert beat(StatusDir(tmp_path), clock, *parts).usual_seconds == 2.0


def test_a_heartbeat_is_written_once_a_second(tmp_path: Path, clock: list[float]) -> None:
    status = StatusDir(tmp_path)
    assert beat(status, clock, ("micro-batch", 0.5), *[("micro-batch", 0.1)] * 5).count == 1
    assert beat(status, clock, *[("micro-batch", 0.5)] * 5).count == 5
    status.clear()
    assert status.beats() == {}


def test_the_end_of_the_first_step_is_written_at_once(tmp_path: Path, clock: list[float]) -> None:
    """Else a rank that hangs right after it would have the time of a first step."""
    assert beat(StatusDir(tmp_path), clock, ("micro-batch", 0.1), ("step", 0.1)).usual_seconds == pytest.approx(0.1)


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
    assert stack_traces.waits(where)


def test_a_rank_that_reads_data_waits_for_nobody() -> None:
    assert not stack_traces.waits(READING)


def test_the_files_of_frames_that_wait_are_there() -> None:
    root = Path(stack_traces.__file__).parents[1]
    assert all((root / "training" / name).is_file() for name in ("collectives.py", "callbacks.py"))


def test_a_place_in_words() -> None:
    assert stack_traces.place(READING) == "__getitem__ (arrow_dataset.py:90)"
    assert stack_traces.place("") == "an unknown place"


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


@pytest.mark.slow
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
    stacks = stack_traces.ask_for_stacks(status, pids, seconds=2)

    assert time.monotonic() - began < 10
    assert stacks[0].count("most recent call first") == 2, "every thread"
    assert stack_traces.place(stacks[0]).startswith("asleep")
    assert (stacks[1], stacks[2]) == ("", ""), "one is stopped, one has not registered for the signal"
    assert ranks[2].poll() is None, "and does not die of it"
    assert "rank 1 ===\n(did not answer" in stack_traces.report(stacks)
    again = stack_traces.ask_for_stacks(status, {0: pids[0]}, seconds=2)
    assert again[0].count("most recent call first") == 2, "and not those of the first time"


def test_a_forgotten_rank_leaves_nothing_but_the_stop_flag(tmp_path: Path) -> None:
    status = StatusDir(tmp_path)
    status.write_status(RankStatus(rank=1, step=7))
    status.write_failures({1: {"exitCode": -9, "time": 1.0}})
    status.stacks_file(1).write_text("Thread")
    status.raise_stop()
    status.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["stop"]


@pytest.mark.parametrize(
    ("budget", "elapsed", "by"),
    [(None, 1e6, None), (100.0, 99.0, None), (100.0, 101.0, BUDGET)],
    ids=["no budget", "not used up", "used up"],
)
def test_the_launcher_stops_its_ranks_once_the_budget_is_used_up(
    budget: float | None, elapsed: float, by: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    config = tiny.make_run(tmp_path)
    (tmp_path / "status").mkdir()
    status = StatusDir(tmp_path / "status")
    pod = PodAttempt(config, require_plan(config).plan, Attempt(number=1, budget_seconds=budget), 0, status)
    status.write_status(RankStatus(rank=0, stage="Training"))
    supervisor = Supervisor(pod)
    now[0] += elapsed
    assert supervisor(0) is None, "the ranks agree on a step to stop at"
    assert (status.stopped_by() if status.stop_raised() else None) == by


def test_a_budget_that_is_used_up_before_the_first_step_ends_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path)
    (tmp_path / "status").mkdir()
    status = StatusDir(tmp_path / "status")
    pod = PodAttempt(config, require_plan(config).plan, Attempt(number=1, budget_seconds=1e-9), 0, status)
    status.write_status(RankStatus(rank=0, stage="Starting"))
    verdict = Supervisor(pod)(0)
    assert verdict is not None
    assert verdict.message.startswith("stopped by the budget of the job, which is used up, before its first step")
