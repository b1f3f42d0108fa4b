"""A cell of the table: a family with a method and a placement, prepared, trained for two steps and finished.

Ranks and steps are forks of a process that has the libraries loaded already, so that a cell takes seconds.
"""

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dev.architectures import served
from dev.architectures.families import FAMILIES, make
from dev.matrix import Outcome
from hone.contract.methods import MethodType
from hone.contract.report import ARTIFACT_DIR
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig

PLACEMENTS: dict[str, dict[str, int]] = {
    "1 process": {"processesPerNode": 1},
    "DDP": {"processesPerNode": 2, "zeroStage": 0},
    "ZeRO-3": {"processesPerNode": 2, "zeroStage": 3},
}
SERVED = "vLLM"
"""A cell of this name trains in one process, and compares what vLLM computes with the artifact."""
SERVED_METHODS = (MethodType.LORA, MethodType.FULL)
STEPS, SECONDS = 2, 600


def cells() -> list[str]:
    """All of them, as family/method/placement."""
    trained = [f"{family}/{method}/{place}" for family in FAMILIES for method in MethodType for place in PLACEMENTS]
    return trained + [f"{family}/{method}/{SERVED}" for family in FAMILIES for method in SERVED_METHODS]


def run(cell: str) -> Outcome:
    """Try one cell in a process of its own; this one must not have computed anything with torch yet."""
    directory = Path(tempfile.mkdtemp(prefix="hone-architectures-"))
    result = directory / "result"
    try:
        code = _wait([_fork(lambda: _run_here(cell, directory), directory / "log")])
        if code == 0:
            return Outcome(**json.loads(result.read_text()))
        lines = (directory / "log").read_text(errors="replace").strip().splitlines()
        return Outcome("failed", next((line for line in reversed(lines) if "Error" in line), f"ended with {code}"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run_here(cell: str, directory: Path) -> None:
    from hone_trainer import finish
    from hone_trainer.prepare import prepare
    from hone_trainer.protocol.errors import BadInput

    family, method, place = cell.split("/")
    model = make(family, directory / "model")
    config = _config(model, directory, method, place)
    (directory / "run.json").write_text(config.to_json())
    os.environ.update(HONE_RUN_CONFIG=str(directory / "run.json"), HONE_TERMINATION_LOG=str(directory / "end"))
    began = time.monotonic()
    try:
        prepare(config)
    except BadInput as refusal:
        _say(directory, Outcome("refused", f"`{refusal.field}`: {refusal.message}. {refusal.hint}"))
        return
    _train(directory, config.topology.processes_per_node)
    if finish.main():
        raise RuntimeError(f"RuntimeError: {(directory / 'end').read_text()}")
    artifact = StepResult.model_validate_json((directory / "end").read_text()).artifact
    kind = artifact.kind if artifact else ""
    outcome = Outcome("ran", kind)
    if place == SERVED:
        outcome = served.compare(model, directory / "output" / ARTIFACT_DIR, kind, directory)
    _say(directory, replace(outcome, seconds=round(time.monotonic() - began, 1)))


def _say(directory: Path, outcome: Outcome) -> None:
    (directory / "result").write_text(json.dumps(asdict(outcome)))


def _config(model: Path, directory: Path, method: str, place: str) -> RunConfig:
    """A run on sums of digits."""
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(8) for b in range(8)]
    data = directory / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "output").mkdir()
    return RunConfig.from_dict(
        {
            "job": {"namespace": "architectures", "name": "cell", "uid": "0"},
            "modelName": "tiny",
            "method": {"type": method},
            "hyperparameters": {"maxSteps": STEPS, "globalBatchSize": 4, "learningRate": 0.01},
            "data": {"train": str(data), "minSamples": 1},
            "topology": {"gpusPerNode": 0, **PLACEMENTS.get(place, PLACEMENTS["1 process"])},
            "evaluation": {"maxSamples": 4, "maxNewTokens": 2},
            "paths": {"model": str(model), **{name: str(directory / name) for name in ("workspace", "run", "output")}},
        }
    )


def _train(directory: Path, ranks: int) -> None:
    """All ranks of a run, each a fork."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    status = directory / "status"
    status.mkdir()

    def rank(number: int) -> None:
        from hone_trainer import train
        from hone_trainer.protocol.status import StatusDir

        of_torchrun = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in of_torchrun.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        train._train(number, StatusDir(status))

    if code := _wait([_fork(lambda number=number: rank(number)) for number in range(ranks)]):  # type: ignore[misc]
        raise RuntimeError(f"a rank ended with {code}")


def _fork(function: Callable[[], Any], log: Path | None = None) -> int:
    """Call a function in a fork, in a group of its own where it has a log; returns the process id."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 1
    try:
        if log:
            os.setsid()
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(children: list[int]) -> int:
    """Wait until all have ended; the first that fails, or a timeout, ends the others. Returns its exit code, else 0."""
    left, deadline, code = set(children), time.monotonic() + SECONDS, 0
    while left:
        for child in sorted(left):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                left.discard(child)
                code = code or os.waitstatus_to_exitcode(status)
        if code or time.monotonic() > deadline:
            code = code or 124
            for child in left:
                # One with a log leads a group, in which its ranks are.
                (os.killpg if os.getpgid(child) == child else os.kill)(child, signal.SIGKILL)
                os.waitpid(child, 0)
            return code
        time.sleep(0.05)
    return 0
