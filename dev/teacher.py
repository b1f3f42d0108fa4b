"""The teacher for tests of distillation: `python3 -m dev.teacher` builds it and prints its path.

The teacher is the small base model, tuned to name the sentiment of a review. The trainer itself tunes every weight, as
in pods, on rows that are generated from a seed. The build takes some minutes; the result is cached for this base model
and this code.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from dev.basemodel import cache
from dev.data.reviews import FORMATS, reviews
from dev.uv import ROOT, cache_dir, short_hash

ROWS, SEED, STEPS, RATE = 600, 11, 90, 1e-3
_MODULES = ("prepare", "launch", "finish")
_CODE = ("dev/teacher.py", "dev/data/reviews.py", "dev/data/grammar.py")


def place(base: Path) -> Path:
    """The folder of the teacher of a base model, whether it exists or not."""
    key = short_hash(base.name.encode(), *((ROOT / name).read_bytes() for name in _CODE))
    return cache_dir() / "teacher" / key


def ensure(base: Path) -> Path:
    """The teacher's directory; built if it is missing.

    Raises:
        subprocess.CalledProcessError: a step of the run failed.
    """
    final = place(base)
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / ".lock").open("w") as lock:
        # A second one waits here for the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            directory = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
            try:
                _tune(base, directory)
                (directory / "output/artifact").rename(final)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    return final


def _tune(base: Path, directory: Path) -> None:
    rows = directory / "rows.jsonl"
    rows.write_text("".join(json.dumps(FORMATS["chat"](review)) + "\n" for review in reviews(ROWS, SEED)))
    for name in ("output", "tmp"):
        (directory / name).mkdir()
    config = {
        "job": {"namespace": "dev", "name": "teacher", "uid": "0"},
        "modelName": "reviews-base",
        "method": {"type": "Full"},
        "hyperparameters": {"maxSteps": STEPS, "learningRate": RATE, "seed": SEED},
        "data": {"train": str(rows)},
        "topology": {"gpusPerNode": 0},
        "paths": {"model": str(base), **{name: str(directory / name) for name in ("workspace", "run", "output")}},
    }
    (directory / "run.json").write_text(json.dumps(config))
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "HONE_RUN_CONFIG": str(directory / "run.json"),
        "HONE_TERMINATION_LOG": str(directory / "end"),
        "HONE_METRICS_PORT": str(port),
        "TMPDIR": str(directory / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    for module in _MODULES:
        command = [sys.executable, "-m", f"hone_trainer.{module}"]
        subprocess.run(command, env={**os.environ, **environment}, stdout=sys.stderr, check=True)


if __name__ == "__main__":
    model = cache.find()
    if model is None:
        sys.exit("error: there is no base model yet: make images, or python3 -m dev.basemodel build")
    print(ensure(model))
