"""A real Prometheus on this machine that scrapes the cluster's pods as the chart's PodMonitors would have it."""

import contextlib
import json
import re
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.cluster import deps
from dev.kube import Kube, KubeError, Object, environment
from hone.core.names import RESOURCE_LABELS, ROLE_LABEL, STEP_LABEL
from tests.e2e.support import until

OPERATOR, WORKLOADS = "operator", "workloads"
POD_TARGET_LABELS = (*RESOURCE_LABELS.values(), STEP_LABEL, ROLE_LABEL)
REFRESH_SECONDS = 1.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def configuration(targets: Path) -> dict[str, Any]:
    """What is scraped: the targets of a file; Debian builds Prometheus without Kubernetes' discovery. JSON is YAML.

    As by the chart's PodMonitors, only the operator's own labels win over those of its target.
    """
    files = [{"files": [str(targets)], "refresh_interval": "1s"}]
    return {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
        "scrape_configs": [
            {
                "job_name": job,
                "honor_labels": job == OPERATOR,
                "file_sd_configs": files,
                "relabel_configs": [{"source_labels": ["job"], "regex": job, "action": "keep"}],
            }
            for job in (OPERATOR, WORKLOADS)
        ],
    }


def targets_of(pods: list[Object]) -> list[dict[str, Any]]:
    """The ports that the chart's PodMonitors select: those named metrics, of the operator and of our pods."""
    groups = []
    for pod in pods:
        meta, labels = pod["metadata"], pod["metadata"].get("labels") or {}
        is_operator = labels.get("app.kubernetes.io/component") == "operator"
        is_ours = labels.get("app.kubernetes.io/managed-by") == "hone"
        if not (is_operator or is_ours) or pod["status"].get("phase") != "Running" or "podIP" not in pod["status"]:
            continue
        ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
        addresses = [
            f"{pod['status']['podIP']}:{port['containerPort']}" for port in ports if port.get("name") == "metrics"
        ]
        known = {"job": OPERATOR if is_operator else WORKLOADS, "namespace": meta["namespace"], "pod": meta["name"]}
        ours = {re.sub(r"\W", "_", label): labels[label] for label in POD_TARGET_LABELS if label in labels}
        groups.append({"targets": addresses, "labels": {**known, **ours}})
    return groups


def _keep_fresh(kube: Kube, file: Path, ended: threading.Event) -> None:
    """Write the targets until `ended`, whole each time."""
    while not ended.wait(REFRESH_SECONDS):
        # A list that fails is tried again: the targets stay as they were.
        with contextlib.suppress(KubeError):
            new = file.with_suffix(".new")
            new.write_text(json.dumps(targets_of(json.loads(kube.run("get", "pod", "-A", "-o", "json"))["items"])))
            new.rename(file)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result vector of an instant query: entries with `metric` and `value`."""
        quoted = urllib.parse.urlencode({"query": expression})
        with _OPENER.open(f"{self._url}/api/v1/query?{quoted}", timeout=10) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with _OPENER.open(f"{self._url}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@contextmanager
def running(kubeconfig: Path, folder: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus on a free port of loopback, with its data in `folder`, until the block ends."""
    config, targets = folder / "prometheus.yml", folder / "targets.json"
    config.write_text(json.dumps(configuration(targets)))
    targets.write_text("[]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    environ = {**environment(kubeconfig), "PATH": deps.search_path()}
    ended = threading.Event()
    keeper = threading.Thread(target=_keep_fresh, args=(Kube(kubeconfig), targets, ended), daemon=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
    keeper.start()
    try:
        prometheus = Prometheus(f"http://{address}")
        until(prometheus.ready, f"Prometheus answers; its log: {folder / 'log'}", 60)
        yield prometheus
    finally:
        ended.set()
        process.terminate()
        process.wait(timeout=30)
        keeper.join(timeout=60)


def lint(text: str) -> str:
    """What `promtool check metrics` says of an exposition; nothing when it finds no fault."""
    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": deps.search_path()},
    )
    return result.stdout + result.stderr


def scrape(address: str) -> str:
    """The metrics that an address, such as `10.88.0.7:9400`, shows."""
    with _OPENER.open(f"http://{address}/metrics", timeout=10) as response:
        return str(response.read().decode())
