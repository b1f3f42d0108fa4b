"""A real Prometheus on this machine that scrapes the cluster's pods as the chart's PodMonitors would have it."""

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.cluster import deps
from dev.kube import environment
from tests.e2e.support import until

OPERATOR, WORKLOADS = "operator", "workloads"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_LABEL = "__meta_kubernetes_pod_label_"


def _keep(label: str, regex: str) -> dict[str, Any]:
    return {"source_labels": [label], "regex": regex, "action": "keep"}


def _copy(label: str, target: str) -> dict[str, Any]:
    return {"source_labels": [label], "target_label": target}


def configuration(kubeconfig: Path) -> dict[str, Any]:
    """Two scrape jobs: the operator's metrics, and those of the pods that it makes. JSON is YAML."""
    pods = {"kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}]}
    common = [
        _keep("__meta_kubernetes_pod_container_port_name", "metrics|http"),
        _keep("__meta_kubernetes_pod_phase", "Running"),
        _copy("__meta_kubernetes_namespace", "namespace"),
        _copy("__meta_kubernetes_pod_name", "pod"),
        _copy(f"{_LABEL}hone_dev_step", "step"),
    ]
    operator = _keep(f"{_LABEL}app_kubernetes_io_component", "operator")
    workloads = _keep(f"{_LABEL}app_kubernetes_io_managed_by", "hone")
    return {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
        "scrape_configs": [
            {"job_name": OPERATOR, **pods, "relabel_configs": [operator, *common]},
            {"job_name": WORKLOADS, **pods, "relabel_configs": [workloads, *common]},
        ],
    }


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
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(configuration(kubeconfig)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    environ = {**environment(kubeconfig), "PATH": deps.search_path()}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
    try:
        prometheus = Prometheus(f"http://{address}")
        until(prometheus.ready, f"Prometheus answers; its log: {folder / 'log'}", 60)
        yield prometheus
    finally:
        process.terminate()
        process.wait(timeout=30)


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
