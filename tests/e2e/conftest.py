"""The cluster of the end-to-end tests, Hone installed by its chart, and what to look at when a test fails."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import demo, install
from dev.cluster import cluster as local
from dev.cluster import paths
from dev.kube import Kube, KubeError
from dev.uv import ROOT
from tests.e2e.prometheus import Prometheus, running

DUMPS = ROOT / "build/e2e"
LOG_LINES = 60
MAX_DUMPS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder needs the cluster, and may take minutes; long ones are marked as soak tests instead."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(1800))


def pytest_sessionstart() -> None:
    """What an earlier run left to be read goes."""
    for file in DUMPS.glob("*.txt"):
        file.unlink()


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The local cluster, which must be running."""
    wrong = local.problems()
    assert not wrong, f"the local cluster is not ready ({'; '.join(wrong)}): run `make e2e`, which starts it"
    return Kube(paths.kubeconfig())


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The images that were built, by name."""
    return install.images()


@pytest.fixture(scope="session")
def hone(kube: Kube, images: dict[str, str]) -> str:
    """Hone installed by its chart; the namespace that its operator runs in."""
    install.install(kube, images)
    return install.SYSTEM_NAMESPACE


@pytest.fixture(scope="session")
def prometheus(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that watches all lives from before they begin."""
    with running(kube.kubeconfig, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="session")
def demonstration(kube: Kube, prometheus: Prometheus) -> Iterator[str]:
    """`make demo`, run once for all tests of its life; what it printed."""
    kube.run("delete", "namespace", demo.NAMESPACE, "--ignore-not-found", "--timeout=300s", seconds=320)
    yield run_demo()
    kube.run("delete", "namespace", demo.NAMESPACE, "--ignore-not-found", "--wait=false")


def run_demo(seconds: float = 1500) -> str:
    """Run the demo as its users do, but for make; its words go to the terminal too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dev.demo"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
        code = process.wait(timeout=seconds)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)
    text = "".join(lines)
    assert code == 0, text[-3000:]
    return text


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """After a failure write down what the cluster looks like, and name the file in the report."""
    report = yield
    # What follows a failure is its echo more often than not; the cluster need not be described again and again.
    if report.failed and call.excinfo is not None and len(list(DUMPS.glob("*.txt"))) < MAX_DUMPS:
        file = DUMPS / f"{item.name.replace('/', '_')}-{report.when}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dump())
        report.sections.append(("the cluster at the time", f"written to {file.relative_to(ROOT)}\n{brief()}"))
    return report


def _say(kube: Kube, *arguments: str) -> str:
    try:
        return kube.run(*arguments, seconds=30)
    except KubeError as error:
        return f"({error})\n"


def brief() -> str:
    """The resources and pods of all namespaces, a line each."""
    kube = Kube(paths.kubeconfig())
    return "\n".join(_say(kube, "get", kind, "-A", "-o", "wide") for kind in ("ftj", "mdep", "job", "pod"))


def dump() -> str:
    """All that helps to understand a failure: resources, events, and every pod with the last lines of its log."""
    kube = Kube(paths.kubeconfig())
    parts = [brief(), _say(kube, "get", "events", "-A", "--sort-by=.lastTimestamp")]
    parts += [_say(kube, "get", kind, "-A", "-o", "yaml") for kind in ("ftj", "mdep")]
    with contextlib.suppress(KubeError):
        for pod in json.loads(kube.run("get", "pod", "-A", "-o", "json"))["items"]:
            meta = pod["metadata"]
            of = kube.within(meta["namespace"])
            parts += [f"### {meta['namespace']}/{meta['name']}", _say(of, "describe", "pod", meta["name"])]
            parts.append(_say(of, "logs", meta["name"], f"--tail={LOG_LINES}", "--all-containers"))
    return "\n".join(parts)
