"""vLLM's OpenAI server as a process of this machine, started as a ModelDeployment's pod starts it.

`python3 -m dev.vllm` makes its environment, in $HONE_CACHE/vllm/<hash of the lock file>, from the lock of the image for
CPUs: vLLM needs another release of transformers than the trainer.
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev import uv, venv
from dev.lock import locked

if TYPE_CHECKING:
    from hone.contract.results import ArtifactSummary

LOCK = uv.ROOT / "dev/images/vllm-cpu/requirements.lock"
SECONDS_TO_START = 900
SECONDS_TO_STOP = 60


def location() -> Path:
    """Where the environment for this lock and this Python belongs."""
    return uv.cache_dir() / "vllm" / uv.short_hash(LOCK.read_bytes(), venv.python_version().encode())


def ensure() -> Path:
    """The environment's interpreter; the environment is made if it is missing, which takes minutes."""
    environment = location()
    with locked(uv.cache_dir() / "vllm.lock", "another clone that makes vLLM's environment"):
        if not (environment / "COMPLETE").is_file():
            venv.build(environment, LOCK)
    return environment / "bin/python"


@contextmanager
def serving(deployment: dict[str, Any], artifact: Path, directory: Path) -> Iterator[str]:
    """The address of the server of a ModelDeployment, as long as the context lasts.

    Args:
        deployment: the resource, whose server runs on CPUs.
        artifact: the directory of a whole model, as finish has written it.
        directory: for the server's log and its own files.

    Raises:
        RuntimeError: it has ended, or does not answer in time; with the end of its log.
    """
    port, log, home = _free_port(), directory / "vllm.log", directory / "vllm-home"
    home.mkdir()
    arguments, environment = rendered(deployment, _summary(artifact), artifact, home)
    command = [str(ensure()), "-m", "vllm.entrypoints.openai.api_server", *arguments]
    command += ["--host=127.0.0.1", f"--port={port}"]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**inherited, **environment})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(home, ignore_errors=True)


def rendered(
    deployment: dict[str, Any], summary: "ArtifactSummary", artifact: Path, home: Path
) -> tuple[list[str], dict[str, str]]:
    """The server's arguments and variables as the operator renders them, with paths of this machine.

    Args:
        deployment: the resource.
        summary: what status says of the artifact.
        artifact: its directory.
        home: a directory of the server's own.
    """
    from hone.api.modeldeployment import ServedArtifactStatus
    from hone.core.modeldeployment.resources import vllm
    from hone.core.modeldeployment.selection import ServedArtifact
    from hone.core.modeldeployment.server import Server
    from hone.core.settings import Settings

    server = Server(deployment, Settings())
    served = ServedArtifact(server.job, ServedArtifactStatus.from_dict(summary.to_dict()))
    arguments = [flag.replace(vllm.SERVED_DIRECTORY, str(artifact)) for flag in vllm.arguments(server, served)]
    environment = vllm.environment(server)
    return arguments, {name: value.replace("/tmp", str(home), 1) for name, value in environment.items()}


def _summary(artifact: Path) -> "ArtifactSummary":
    from hone.contract.report import REPORT_FILE, Report

    return Report.model_validate_json((artifact.parent / REPORT_FILE).read_text()).artifact


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10):
                return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"vLLM does not answer (exit code {process.poll()}):\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    print(ensure())
