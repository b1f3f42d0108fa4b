"""Real launchers whose ranks are struck by faults that the launcher deals with: no memory, no movement, no time."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from launchers import START_SECONDS, Launcher, free_port, newest_step

from hone.contract.exits import FailureClass
from hone.contract.runconfig import RunConfig
from hone_trainer.planning.memory_fallback import load_level
from hone_trainer.protocol.probe import load_probe

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]

Start = Callable[..., Launcher]


def rows_by_step(directory: Path, step: int) -> list[Counter]:
    """The rows that all ranks together trained on at a step, in each start of the ranks that came as far."""
    starts: list[Counter] = []
    for file in sorted(directory.glob("rows.rank*")):
        of_rank: list[Counter] = []
        before = None
        for line in file.read_text().splitlines():
            at, rows = json.loads(line)
            if at == step and before != step:
                of_rank.append(Counter())
            if at == step:
                of_rank[-1].update(tuple(row) for row in rows)
            before = at
        starts = [a + b for a, b in zip(starts, of_rank, strict=True)] if starts else of_rank
    return starts


def test_ranks_without_memory_start_again_in_place_with_the_same_rows(tmp_path: Path, start: Start) -> None:
    config = tiny.make_run(tmp_path, processes=2, micro_batch=4, accumulation=2, steps=6, every=2, probe=True)
    launcher = start(tmp_path, "a", faults=f"oom@4:above=2:rank=1 rows@step:file={tmp_path / 'rows'}")
    progress = launcher.until(lambda progress: progress["restarts"] == 1)
    assert progress["checkpointStep"] == 2, "where it continues from is known before the ranks are up again"
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step, result.restarts) == (0, 6, 1), launcher.log()
    change = "microBatchSize 4 → 2, gradientAccumulationSteps 2 → 4: out of memory at step 4"
    assert result.changes == progress["changes"] == [change]
    assert (load_level(config).level, newest_step(config)) == (1, 6)
    measured = load_probe(config, level=0)
    assert measured.peak_bytes > 0, "two steps were tried out first, on the planned micro-batch"
    assert measured.seconds_per_step > 0
    before, after = rows_by_step(tmp_path, 3)
    assert before.total() == 16
    assert before == after, "another micro-batch, the same rows"


def test_a_rank_that_hangs_is_found_with_its_stack(tmp_path: Path, start: Start) -> None:
    config: RunConfig = tiny.make_run(tmp_path, processes=2, steps=500, every=2, hang_floor_seconds=15.0)
    launcher = start(tmp_path, "a", faults="sleep@4:rank=1")
    launcher.until(lambda progress: progress.get("checkpointStep") == 2)
    struck = time.monotonic()
    code, result = launcher.wait()
    assert 14 < time.monotonic() - struck < 45
    verdict = result.verdict
    assert (code, verdict.failure_class, verdict.rank) == (67, FailureClass.HUNG, 1), launcher.log()
    assert verdict.step in (2, 3), "ranks tell their step once a second"
    assert "rank 1 is the suspect: it is in _sleep (fault_injection.py:" in verdict.message
    stacks = Path(config.paths.run) / "stacks-attempt-1-node-0.txt"
    assert str(stacks) in verdict.message
    rank_0, rank_1 = stacks.read_text().split("=== rank 1 ===")
    assert "in _sleep" in rank_1
    assert "in _sleep" not in rank_0
    assert "training_step" in rank_0, "the other one's stack is there too"
    assert "in _sleep" in launcher.log(), "the pod's log has them as well"
    assert newest_step(config) == 2


def test_a_rank_that_is_stuck_while_it_loads_is_found(tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, processes=2, hang_floor_seconds=15.0)
    launcher = start(tmp_path, "a", faults="sleep@torch:rank=1")
    code, result = launcher.wait(START_SECONDS)
    verdict = result.verdict
    assert (code, verdict.failure_class, verdict.rank) == (67, FailureClass.HUNG, 1), launcher.log()
    assert "while loading, rank 1 has neither computed, read nor written for" in verdict.message
    assert "it is in _sleep (fault_injection.py:" in verdict.message


def test_a_step_that_takes_longer_than_the_limit_of_its_parts_is_no_hang(tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, steps=2, every=2, accumulation=6, hang_floor_seconds=15.0)
    launcher = start(tmp_path, "a", faults="slow@step:seconds=4")
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step) == (0, 2), launcher.log()


def test_a_save_that_is_stuck_is_found_and_costs_no_older_checkpoint(tmp_path: Path, start: Start) -> None:
    config: RunConfig = tiny.make_run(tmp_path, processes=2, steps=6, every=2, hang_floor_seconds=15.0)
    launcher = start(tmp_path, "a", faults="sleep@mark=4:rank=0")
    code, result = launcher.wait(START_SECONDS)
    verdict = result.verdict
    assert (code, verdict.failure_class, verdict.rank) == (67, FailureClass.HUNG, 0), launcher.log()
    assert "while saving a checkpoint, rank 0 has neither computed, read nor written for" in verdict.message
    assert newest_step(config) == 2


@pytest.mark.soak
def test_a_save_that_is_as_slow_as_planned_is_no_hang(tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, processes=2, steps=4, every=2, hang_floor_seconds=15.0, checkpoint_seconds=60.0)
    launcher = start(tmp_path, "a", faults=f"hold@mark=2:once={tmp_path / 'held'}")
    launcher.until_true((tmp_path / "held.rank0").exists)
    held = time.monotonic()
    launcher.until_true(lambda: time.monotonic() > held + 40)
    (tmp_path / "held.go").touch()
    code, result = launcher.wait(START_SECONDS)
    assert (code, result.final_step) == (0, 4), launcher.log()


@pytest.mark.parametrize("node", ["0", "1"])
def test_a_pod_whose_peer_does_not_come_has_the_class_of_a_late_pod(node: str, tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, nodes=2, start_deadline_seconds=3)
    meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
    launcher = start(tmp_path, "a", JOB_COMPLETION_INDEX=node, **meeting)
    code, result = launcher.wait()
    assert (code, result.verdict.failure_class) == (69, FailureClass.NEVER_STARTED), launcher.log()
    assert f"not all 2 pods met within startDeadlineSeconds (3), as seen by pod {node}" in result.verdict.message


def test_a_stop_before_the_ranks_have_begun_is_prompt(tmp_path: Path, start: Start) -> None:
    tiny.make_run(tmp_path, processes=2)
    launcher = start(tmp_path, "a")
    launcher.until_true(lambda: bool(launcher.pids(RANK="0")) and bool(launcher.pids(RANK="1")))
    launcher.process.send_signal(signal.SIGTERM)
    code, result = launcher.wait(10)
    assert (code, result.verdict.failure_class) == (75, FailureClass.PREEMPTED), launcher.log()
