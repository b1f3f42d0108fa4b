"""A gang of two pods that loses one; and one under ZeRO-3 that continues. More moments are in test_kill_moments.py."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import tiny
from launchers import END_SECONDS, START_SECONDS, Launcher, free_port, largest_difference, newest_step
from torch.distributed import DistNetworkError, DistStoreError, TCPStore

from hone.contract.exits import FailureClass
from hone.contract.methods import MethodType
from hone.contract.runconfig import RunConfig
from hone_trainer.training import checkpoint

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same in IPv6, and ::1, as /proc/net shows them."""

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]


def test_a_pod_that_lost_its_peer_says_so(tmp_path: Path, start: Callable[..., Launcher]) -> None:
    config = tiny.make_run(tmp_path, nodes=2, steps=5000, every=10)
    port = free_port()
    meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(port)}
    first, second = (start(tmp_path, f"pod-{node}", JOB_COMPLETION_INDEX=node, **meeting) for node in ("0", "1"))
    first.until(lambda progress: progress.get("checkpointStep", 0) >= 10)
    assert second.get("/progress")[0] == 404, "rank 0 is in the other pod"
    assert 'hone_train_step{rank="1"}' in second.get("/metrics")[1]
    # By torch's own rendezvous, a stranger who reaches this port reads and writes the keys by which ranks meet.
    with pytest.raises((DistNetworkError, DistStoreError)):
        TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False)
    open_ports = {port for address, port in first.listening() if address not in LOOPBACK}
    assert {port, first.port} <= open_ports
    second.kill()
    code, result = first.wait()
    assert (code, result.verdict.failure_class) == (68, FailureClass.COMMUNICATION), first.log()
    assert (result.verdict.rank, result.verdict.node) == (0, 0)
    assert newest_step(config) >= 10


def test_a_gang_under_zero_3_that_was_lost_goes_on_exactly(tmp_path: Path, start: Callable[..., Launcher]) -> None:
    plan = {"method": MethodType.FULL, "zero_stage": 3, "processes": 2, "steps": 30, "every": 5, "evaluate": 4}
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    whole = tiny.make_run(alone, **plan)
    config = tiny.make_run(cut, **plan, shared=alone)
    launcher = start(alone, "a")
    code, result = launcher.wait(START_SECONDS + END_SECONDS)
    assert (code, result.final_step) == (0, 30), launcher.log()
    evaluated = last_evaluation(launcher)
    assert evaluated["step"] == 30
    assert 0 < evaluated["evalLoss"] < 5

    launcher = start(cut, "b1")
    launcher.until(lambda progress: progress.get("checkpointStep", 0) >= 5)
    listening = launcher.listening()
    assert len(listening) > 1, "the store should listen, too"
    assert {port for address, port in listening if address not in LOOPBACK} == {launcher.port}
    launcher.kill()
    launcher.process.wait()
    assert 5 <= newest_step(config) < 30
    files = exported, states = [whole_checkpoint(run) for run in (whole, config)]
    assert all(f"rng_state_{rank}.pth" in sha256 for sha256 in files for rank in (0, 1)), (
        "both ranks' digests are there"
    )
    assert "model.safetensors" in exported
    assert "model.safetensors" not in states, "only the last one is exported: others are not gathered for it"

    launcher = start(cut, "b2")
    code, result = launcher.wait(START_SECONDS + END_SECONDS)
    assert (code, result.final_step) == (0, 30), launcher.log()
    assert largest_difference(whole, config) == 0.0
    assert last_evaluation(launcher)["evalLoss"] == evaluated["evalLoss"]


def whole_checkpoint(config: RunConfig) -> dict[str, str]:
    """Digests of the newest whole checkpoint's files."""
    newest = checkpoint.newest(config)
    assert newest is not None and newest[1].sha256 is not None
    return newest[1].sha256


def last_evaluation(launcher: Launcher) -> dict:
    """The log's last line on an evaluation."""
    return json.loads([line for line in launcher.log().splitlines() if '"msg": "evaluation"' in line][-1])
