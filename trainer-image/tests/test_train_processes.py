"""Real launchers with real ranks on gloo: killed, asked to stop, resumed; and a gang of two pods that loses one."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from launchers import END_SECONDS, START_SECONDS, Launcher, free_port, largest_difference, newest_step

from hone.contract.exits import FailureClass
from hone.contract.settings import MethodType

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]


def test_a_gang_killed_preempted_and_resumed_equals_one_left_alone(
    tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    plan = {"method": MethodType.FULL, "zero_stage": 2, "processes": 2, "steps": 200, "every": 10, "accumulation": 2}
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    whole = tiny.make_run(alone, **plan)
    config = tiny.make_run(cut, **plan, shared=alone)

    # Left alone: it serves its figures and ends well.
    launcher = start(alone, "a")
    told = launcher.until(lambda progress: progress["stage"] == "Training" and progress["step"] >= 2)
    assert (told["totalSteps"], told["podUid"]) == (200, "a")
    code, metrics = launcher.get("/metrics")
    assert code == 200
    assert 'hone_train_step{rank="0"}' in metrics
    assert 'hone_train_step{rank="1"}' in metrics
    if promtool := shutil.which("promtool"):
        checked = subprocess.run([promtool, "check", "metrics"], input=metrics, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    code, result = launcher.wait()
    assert (code, result.final_step, result.verdict) == (0, 200, None), launcher.log()

    # One rank killed: the pod says which, and by what.
    launcher = start(cut, "b1")
    launcher.until(lambda progress: progress.get("checkpointStep", 0) >= 10)
    launcher.kill(RANK="1")
    code, result = launcher.wait()
    assert (code, result.verdict.failure_class) == (70, FailureClass.CRASHED), launcher.log()
    assert "rank 1 was killed by SIGKILL" in result.verdict.message
    assert (result.verdict.rank, result.verdict.exit_code) == (1, -9)
    crashed_at = newest_step(config)
    assert 10 <= crashed_at < 200

    # Asked to stop: both ranks save at the same step and leave.
    launcher = start(cut, "b2")
    told = launcher.until(lambda progress: progress["stage"] == "Training" and progress["step"] > crashed_at)
    assert told["resumedFromStep"] == crashed_at
    launcher.process.send_signal(signal.SIGTERM)
    code, result = launcher.wait()
    assert (code, result.verdict.failure_class) == (75, FailureClass.PREEMPTED), launcher.log()
    stopped_at = newest_step(config)
    assert crashed_at < stopped_at < 200
    assert f"step {stopped_at}" in result.verdict.message

    # To the end, and it is as if nothing had happened.
    launcher = start(cut, "b3")
    code, result = launcher.wait(START_SECONDS + END_SECONDS)
    assert (code, result.final_step) == (0, 200), launcher.log()
    assert largest_difference(whole, config) == 0.0


def test_a_pod_that_lost_its_peer_says_so(tmp_path: Path, start: Callable[..., Launcher]) -> None:
    config = tiny.make_run(tmp_path, nodes=2, steps=5000, every=10)
    meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
    first, second = (start(tmp_path, f"pod-{node}", JOB_COMPLETION_INDEX=node, **meeting) for node in ("0", "1"))
    first.until(lambda progress: progress.get("checkpointStep", 0) >= 10)
    assert second.get("/progress")[0] == 404, "rank 0 is in the other pod"
    assert 'hone_train_step{rank="1"}' in second.get("/metrics")[1]
    second.kill()
    code, result = first.wait()
    assert (code, result.verdict.failure_class) == (68, FailureClass.COMMUNICATION), first.log()
    assert (result.verdict.rank, result.verdict.node) == (0, 0)
    assert newest_step(config) >= 10
