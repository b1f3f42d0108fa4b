"""Prometheus' own linter on the operator's metrics with every kind of series, without an API server."""

import subprocess

from hone.runtime.queue import WorkQueue
from tests.unit.runtime.support import FakeClock
from tests.unit.runtime.test_metrics import STATUS, filled


async def no_work(key: str) -> None:
    """Nothing to do."""


def test_promtool_accepts_the_metrics(promtool: str) -> None:
    metrics = filled(STATUS)
    WorkQueue("finetunejob", no_work, metrics, clock=FakeClock())
    result = subprocess.run([promtool, "check", "metrics"], input=metrics.text(), capture_output=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")
