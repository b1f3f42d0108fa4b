"""vLLM's OpenAI server as a process of this machine, in an environment of its own: vLLM and the trainer need other
releases of transformers.

`python3 -m dev.vllm` makes the environment, in $HONE_CACHE/vllm/<hash of the lock file>: that of the image for CPUs.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev import uv, venv
from dev.lock import locked

LOCK = uv.ROOT / "dev" / "images" / "vllm-cpu" / "requirements.lock"
SECONDS_TO_START = 900
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
"""As the image has it."""


def location() -> Path:
    """Where the environment for this lock and this Python belongs."""
    return uv.cache_dir() / "vllm" / uv.short_hash(LOCK.read_bytes(), venv.python_version().encode())


def ensure() -> Path:
    """The environment's interpreter; the environment is made if it is missing, which takes minutes."""
    environment = location()
    with locked(uv.cache_dir() / "vllm.lock", "another clone that makes vLLM's environment"):
        if not (environment / "COMPLETE").is_file():
            venv.build(environment, LOCK)
    return environment / "bin" / "python"


@contextmanager
def serving(artifact: Path, name: str, arguments: Sequence[str], log: Path) -> Iterator[str]:
    """The address of a server of an artifact, as long as the context lasts.

    Args:
        artifact: the model's directory.
        name: what the model is served as.
        arguments: further arguments of vLLM.
        log: where the server's output goes.

    Raises:
        RuntimeError: it has ended, or does not answer in time; with the end of its log.
    """
    port = _free_port()
    command = [str(ensure()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(artifact)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), *arguments]
    home = log.parent / "home"
    home.mkdir(exist_ok=True)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**variables, **_ENVIRONMENT, "HOME": str(home)}
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(home, ignore_errors=True)


def post(url: str, content: object) -> dict[str, object]:
    """The answer of a server to a JSON document."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(1)
    raise RuntimeError(f"vLLM does not answer (exit code {process.poll()}):\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


if __name__ == "__main__":
    print(ensure())
