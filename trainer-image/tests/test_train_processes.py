"""Real launchers with real ranks on gloo: killed, asked to stop, resumed; and a gang of two pods that loses one.

Each start imports torch, transformers and DeepSpeed in every rank, so there are few, and each is used for much.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import MethodType
from hone_trainer import checkpoint

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]

START_SECONDS = 240
"""For imports in every rank, on a busy machine."""
END_SECONDS = 120


class Launcher:
    """One pod's launcher, with its own port and termination message."""

    def __init__(self, root: Path, name: str, **environment: str) -> None:
        self.port = free_port()
        self._term = root / f"term-{name}"
        self._log_path = root / f"log-{name}"
        self.environment = {
            "HONE_RUN_CONFIG": str(root / "run.json"),
            "HONE_TERMINATION_LOG": str(self._term),
            "HONE_METRICS_PORT": str(self.port),
            "HONE_POD_UID": name,
            **environment,
        }
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hone_trainer.launch"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status code and body; 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def until(self, reached: Callable[[dict], bool]) -> dict:
        """Its progress, once that has reached something."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            code, body = self.get("/progress")
            if code == 200 and reached(json.loads(body)):
                return json.loads(body)
            assert self.process.poll() is None, f"it ended too early:\n{self.log()}"
            time.sleep(0.05)
        pytest.fail(f"not reached in {START_SECONDS} s:\n{self.log()}")

    def wait(self, seconds: float = END_SECONDS) -> tuple[int, StepResult]:
        """Exit code and termination message. No process of this pod is left."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.log()}")
        assert self.pids() == [], "processes were left behind"
        return code, StepResult.model_validate_json(self._term.read_text())

    def pids(self, **more: str) -> list[int]:
        """Live processes of this pod, found by their environment; of one rank with RANK="1"."""
        wanted = {f"{name}={value}".encode() for name, value in {**self.environment, **more}.items()}
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill(self, **more: str) -> None:
        """SIGKILL to the pod's processes, the launcher first, as when its node is lost; or to one rank's."""
        for pid in sorted(self.pids(**more)):
            os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """The last of what it and its ranks printed."""
        return self._log_path.read_text()[-6000:]


@pytest.fixture
def launchers() -> Iterator[list[Launcher]]:
    """Launchers to be ended with the test, however it ends."""
    started: list[Launcher] = []
    yield started
    for launcher in started:
        launcher.kill()
        launcher.process.wait()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def newest_step(config: RunConfig) -> int:
    """Step of the newest whole checkpoint."""
    return checkpoint.newest(config)[1].step


def test_a_gang_killed_preempted_and_resumed_equals_one_left_alone(tmp_path: Path, launchers: list[Launcher]) -> None:
    from safetensors.torch import load_file

    plan = {"method": MethodType.FULL, "zero_stage": 2, "processes": 2, "steps": 200, "every": 10, "accumulation": 2}
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    whole = tiny.make_run(alone, **plan)
    config = tiny.make_run(cut, **plan, shared=alone)

    def start(root: Path, name: str) -> Launcher:
        launchers.append(Launcher(root, name))
        return launchers[-1]

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
    first, second = (load_file(checkpoint.final_checkpoint(run)[0] / "model.safetensors") for run in (whole, config))
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) == 0.0


def test_a_pod_that_lost_its_peer_says_so(tmp_path: Path, launchers: list[Launcher]) -> None:
    config = tiny.make_run(tmp_path, nodes=2, steps=5000, every=10)
    meeting = {"HONE_MASTER": "127.0.0.1", "HONE_MASTER_PORT": str(free_port())}
    for node in ("0", "1"):
        launchers.append(Launcher(tmp_path, f"pod-{node}", JOB_COMPLETION_INDEX=node, **meeting))
    first, second = launchers
    first.until(lambda progress: progress.get("checkpointStep", 0) >= 10)
    assert second.get("/progress")[0] == 404, "rank 0 is in the other pod"
    assert 'hone_train_step{rank="1"}' in second.get("/metrics")[1]
    second.kill()
    code, result = first.wait()
    assert (code, result.verdict.failure_class) == (68, FailureClass.COMMUNICATION), first.log()
    assert (result.verdict.rank, result.verdict.node) == (0, 0)
    assert newest_step(config) >= 10
