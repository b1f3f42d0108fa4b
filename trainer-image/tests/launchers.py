"""Launchers as local processes: one stands for a pod, several that share a workspace for a gang of pods.

Each start imports torch, transformers and DeepSpeed in every rank: tests make few, and use each for much.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone_trainer.training import checkpoint

START_SECONDS = 420
"""For imports in every rank, on a busy machine."""
END_SECONDS = 120
FAULTS = Path(__file__).parent / "faults"


class Launcher:
    """One pod's launcher, with its own port and termination message.

    Args:
        root: the run's directory, as `tiny.make_run` made it.
        name: the pod's name in `/progress` and in names of files.
        faults: what strikes its ranks, as faults/fault_injection.py reads it.
        prefix: a command that runs the launcher, such as one that enters a cgroup.
        environment: more variables.
    """

    def __init__(
        self, root: Path, name: str, *, faults: str = "", prefix: tuple[str, ...] = (), **environment: str
    ) -> None:
        self.port = free_port()
        self._term = root / f"term-{name}"
        self._log_path = root / f"log-{name}"
        self._tmp = root / f"tmp-{name}"
        self._tmp.mkdir()
        environment = {
            "HONE_RUN_CONFIG": str(root / "run.json"),
            "HONE_TERMINATION_LOG": str(self._term),
            "HONE_METRICS_PORT": str(self.port),
            "HONE_POD_UID": name,
            "HONE_TEST_FAULT": faults,
            "TMPDIR": str(self._tmp),
            **environment,
        }
        path = os.pathsep.join([str(FAULTS), *sys.path])
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "hone_trainer.launch"],
                env={**os.environ, "PYTHONPATH": path, **environment},
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

    def progress(self) -> dict | None:
        """What it tells of its run, or None while nothing answers or rank 0 is elsewhere."""
        code, body = self.get("/progress")
        return json.loads(body) if code == 200 else None

    def until(self, reached: Callable[[dict], bool]) -> dict:
        """Its progress, once that has reached something."""
        progress: dict = {}

        def look() -> bool:
            progress.clear()
            progress.update(self.progress() or {})
            return bool(progress) and reached(progress)

        self.until_true(look)
        return progress

    def until_true(self, reached: Callable[[], bool]) -> None:
        """Wait for something to become true while the launcher runs."""
        deadline = time.monotonic() + START_SECONDS
        while not reached():
            if self.process.poll() is not None:
                # It may have come true in the same moment.
                assert reached(), f"it ended too early:\n{self.log()}"
                return
            if time.monotonic() > deadline:
                pytest.fail(f"not reached in {START_SECONDS} s:\n{self.log()}")
            time.sleep(0.02)

    def stop_raised(self) -> bool:
        """Whether the launcher has told its ranks to stop."""
        return any(self._tmp.glob("hone-*/stop"))

    def wait(self, seconds: float = END_SECONDS) -> tuple[int, StepResult]:
        """Exit code and termination message. No process of this pod is left."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.log()}")
        assert self.pids() == [], "processes were left behind"
        return code, StepResult.model_validate_json(self._term.read_text())

    def pids(self, **more: str) -> list[int]:
        """Live processes of this pod, found by a variable that only they have; of one rank with RANK="1"."""
        variables = {f"{name}={value}".encode() for name, value in {"TMPDIR": str(self._tmp), **more}.items()}
        pids = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and variables <= set((entry / "environ").read_bytes().split(b"\0")):
                    pids.append(int(entry.name))
            except OSError:
                continue
        return pids

    def listening(self) -> set[tuple[str, int]]:
        """Where this pod's processes accept connections: addresses as /proc/net shows them in hex, and ports."""
        mine = {
            name.removeprefix("socket:[").rstrip("]")
            for pid in self.pids()
            for name in _links(Path(f"/proc/{pid}/fd"))
            if name.startswith("socket:[")
        }
        tables = "".join(Path("/proc/net", table).read_text() for table in ("tcp", "tcp6"))
        lines = [line.split() for line in tables.splitlines()]
        at = (fields[1].split(":") for fields in lines if fields[3] == "0A" and fields[9] in mine)
        return {(address, int(port, 16)) for address, port in at}

    def kill(self, **more: str) -> None:
        """SIGKILL to the pod's processes, the launcher first, as when its node is lost; or to one rank's."""
        for pid in sorted(self.pids(**more)):
            os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """The last of what it and its ranks printed."""
        return self._log_path.read_text(errors="replace")[-20000:]


def _links(directory: Path) -> list[str]:
    """Targets of its links; none of those that went meanwhile."""
    names = []
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            with contextlib.suppress(OSError):
                names.append(str(entry.readlink()))
    return names


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def newest_step(config: RunConfig) -> int:
    """Step of the newest whole checkpoint; 0 where there is none."""
    newest = checkpoint.newest(config)
    return newest[1].step if newest else 0


def largest_difference(first: RunConfig, second: RunConfig) -> float:
    """Between the weights that two runs ended with."""
    from safetensors.torch import load_file

    one, other = (
        {
            f"{path.name}/{key}": tensor
            for path in sorted(checkpoint.final_checkpoint(run)[0].glob("*.safetensors"))
            for key, tensor in load_file(path).items()
        }
        for run in (first, second)
    )
    assert one and one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)
