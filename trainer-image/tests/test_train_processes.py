"""A gang of two pods that loses one. What follows for the run is in test_kill_moments.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from launchers import Launcher, free_port, newest_step

from hone.contract.exits import FailureClass

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]


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
