"""The operator as users run it: a process with probes, metrics, structured logs, and an end on SIGTERM."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from dev.cluster.controlplane import free_ports
from hone.runtime.options import variable
from tests.integration.kubelet import HOLD
from tests.integration.support import FTJ, Cluster, finetunejob, inputs
from tests.integration.test_life import release


@dataclass
class Process:
    """A running operator."""

    process: asyncio.subprocess.Process
    metrics: str
    probes: str
    log: list[dict[str, object]]

    async def get(self, url: str) -> tuple[int, str]:
        """Status and body; 0 where nobody listens."""
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def ready(self) -> bool:
        """Whether the readiness probe says yes."""
        return (await self.get(f"{self.probes}/readyz"))[0] == 200


@asynccontextmanager
async def started(
    cluster: Cluster,
    kubeconfig: Path | None = None,
    namespaces: Sequence[str] = (),
    progress_seconds: float = 0.5,
    **options: str,
) -> AsyncIterator[Process]:
    """`python -m hone.runtime` for the test's namespace, or for several, with more options by the names of Options."""
    metrics, probes = free_ports(2)
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig or cluster.operator_kubeconfig),
        "HONE_WATCH_NAMESPACES": ",".join(namespaces or [cluster.namespace]),
        "HONE_METRICS_PORT": str(metrics),
        "HONE_PROBE_PORT": str(probes),
        "HONE_PROGRESS_SECONDS": str(progress_seconds),
        "PYTHONPATH": "operator/src",
        **{variable(name): value for name, value in options.items()},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hone.runtime", env=environment, stderr=asyncio.subprocess.PIPE
    )
    log: list[dict[str, object]] = []

    async def read() -> None:
        assert process.stderr
        async for line in process.stderr:
            log.append(json.loads(line))

    reading = asyncio.create_task(read())
    try:
        yield Process(process, f"http://127.0.0.1:{metrics}", f"http://127.0.0.1:{probes}", log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def test_a_process_ends_on_sigterm_in_the_middle_and_the_next_one_continues(
    cluster: Cluster, promtool: str
) -> None:
    job = finetunejob()
    job["spec"]["compute"]["pod"] = {"annotations": {HOLD: "true"}}
    async with started(cluster) as first:
        await cluster.wait_for("readiness", first.ready)
        assert (await first.get(f"{first.probes}/healthz"))[0] == 200
        await cluster.create(*inputs(), job)
        await cluster.wait_phase(FTJ, "sft", "Training")
        _, text = await first.get(f"{first.metrics}/metrics")
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.process.wait(), timeout=60) == 0
    assert_clean(text, promtool)
    phases = [line["msg"] for line in first.log if str(line["msg"]).startswith("phase")]
    assert phases[0] == "phase Preparing, was None" and "phase Training, was Queued" in phases
    assert all({"ts", "level", "logger", "msg"} <= set(line) for line in first.log)
    assert not [line for line in first.log if line["level"] in ("error", "warning")]
    before = await cluster.all("Job", "batch/v1")
    async with started(cluster) as second:
        await cluster.wait_for("readiness", second.ready)
        await release(cluster)
        done = await cluster.wait_phase(FTJ, "sft", "Succeeded")
    assert [attempt["number"] for attempt in done["status"]["attempts"]] == [1, 1, 1]
    after = await cluster.all("Job", "batch/v1")
    assert {j["metadata"]["uid"] for j in before} < {j["metadata"]["uid"] for j in after} and len(after) == 3


async def test_without_an_api_server_it_lives_and_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    config = re.sub(
        r"https://127\.0\.0\.1:[0-9]+", f"https://127.0.0.1:{nobody}", cluster.operator_kubeconfig.read_text()
    )
    (tmp_path / "kubeconfig").write_text(config)
    async with started(cluster, tmp_path / "kubeconfig") as operator:

        async def says_so() -> bool:
            return any("waiting for the API server" in str(line["msg"]) for line in operator.log)

        await cluster.wait_for("a line that tells what is waited for", says_so)
        assert (await operator.get(f"{operator.probes}/healthz"))[0] == 200
        assert (await operator.get(f"{operator.probes}/readyz"))[0] == 503
        operator.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(operator.process.wait(), timeout=60) == 0


def assert_clean(metrics: str, promtool: str) -> None:
    """Prometheus' own linter has nothing to say, and the names that dashboards know are there."""
    lint = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    for name in (
        "controller_runtime_reconcile_total",
        "controller_runtime_reconcile_errors_total",
        "controller_runtime_reconcile_time_seconds_bucket",
        "controller_runtime_active_workers",
        "workqueue_depth",
        "workqueue_adds_total",
        "workqueue_queue_duration_seconds_bucket",
        "workqueue_work_duration_seconds_bucket",
        "rest_client_requests_total",
        "hone_finetunejob_phase",
        "process_resident_memory_bytes",
    ):
        assert f"\n{name}" in metrics, name
