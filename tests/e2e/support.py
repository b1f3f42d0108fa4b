"""What the end-to-end tests share: a namespace of their own, a volume read by a pod, a rank found and killed."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from dev import chat, install
from dev.kube import Kube, KubeError, Object, is_true
from dev.uv import ROOT
from hone.contract.report import Report
from hone.contract.runconfig import MASTER_PORT

EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data/reviews.jsonl"
MANAGED = "app.kubernetes.io/managed-by=hone"
# Children that Hone makes, by kubectl's words.
CHILD_KINDS = ("job", "pod", "service", "deployment", "configmap", "persistentvolumeclaim", "networkpolicy")
CHILD_KINDS += ("secret", "poddisruptionbudget")


@contextmanager
def namespace(kube: Kube, name: str) -> Iterator[Kube]:
    """A namespace that admits only restricted pods, gone at the end with all that is in it."""
    kube.run("delete", "namespace", name, "--ignore-not-found", "--timeout=300s", seconds=320)
    install.namespace(kube, name)
    try:
        yield kube.within(name)
    finally:
        kube.run("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def apply_file(kube: Kube, path: Path, edit: Callable[[Object], None] | None = None) -> list[Object]:
    """Apply a file's manifests, each after `edit`; returns what was applied."""
    text = kube.run("create", "--dry-run=client", "-o", "json", "-f", str(path))
    # Several documents come as a List; one comes as itself.
    manifests = _documents(text)
    for manifest in manifests:
        manifest["metadata"].pop("namespace", None)
        if edit:
            edit(manifest)
    kube.apply(*manifests)
    return manifests


def _documents(text: str) -> list[Object]:
    decoder, objects, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        document, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        objects += document["items"] if document["kind"] == "List" else [document]
    return objects


def reviews(kube: Kube) -> None:
    """The examples' data as the ConfigMap that they read."""
    files = [file for pattern in ("*.jsonl", "*.py") for file in DATA.parent.glob(pattern)]
    data = {file.name: file.read_text(encoding="utf-8") for file in files}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "reviews"}, "data": data})


def until(holds: Callable[[], Any], what: str, seconds: float, interval: float = 0.5) -> Any:
    """Poll until `holds` returns something true, and return that.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        if result := holds():
            return result
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(interval)


def finished(kube: Kube, job: str, seconds: float) -> Object:
    """The job once it is Finished, whatever came out.

    Raises:
        KubeError: it is not within `seconds`.
    """
    return kube.wait("finetunejob", job, lambda obj: is_true(obj, "Finished"), "Finished=True", seconds)


def children(kube: Kube, uid: str) -> dict[str, list[str]]:
    """Names of all objects of ours for that uid, by kind; kinds without any are left out."""
    by_kind = {
        kind: [item["metadata"]["name"] for item in kube.list(kind, f"hone.dev/uid={uid}")] for kind in CHILD_KINDS
    }
    return {kind: names for kind, names in by_kind.items() if names}


def read_volume(kube: Kube, claim: str, path: str, image: str) -> str:
    """A file's text on a claim, read by a small pod.

    Raises:
        KubeError: there is no such file, or the pod did not end in time.
    """
    return run_on_volume(kube, claim, ["cat", f"/mnt/volume/{path}"], image, read_only=True)


def run_on_volume(kube: Kube, claim: str, command: list[str], image: str, *, read_only: bool = False) -> str:
    """What a command prints in a small pod that has a claim in /mnt/volume.

    Raises:
        KubeError: it failed, or did not end in time.
    """
    name = f"volume-{claim}"[:63].rstrip("-")
    container = {
        "name": "main",
        "image": image,
        "command": command,
        "volumeMounts": [{"name": "volume", "mountPath": "/mnt/volume", "readOnly": read_only}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
    kube.run("create", "-f", "-", stdin=json.dumps(pod))
    try:
        ended = kube.wait("pod", name, lambda obj: obj["status"]["phase"] in ("Succeeded", "Failed"), "its end", 120)
        text = kube.run("logs", name)
        if ended["status"]["phase"] == "Failed":
            raise KubeError(f"{' '.join(command)} on {claim}: {text}")
        return text
    finally:
        kube.run("delete", "pod", name, "--timeout=60s", seconds=80)


def assert_serves(kube: Kube, name: str, report: Report, samples: int, seconds: float) -> Object:
    """Wait for the ModelDeployment, and compare what it answers with what the trainer's model did; returns it.

    Raises:
        AssertionError: an answer to one of the report's first `samples` prompts differs.
        KubeError: it is not Available within `seconds`.
    """
    deployment = kube.wait("modeldeployment", name, lambda obj: is_true(obj, "Available"), "Available=True", seconds)
    with chat.endpoint(kube, deployment) as server:
        for sample in report.samples[:samples]:
            tokens = report.plan.max_completion_length or report.max_new_tokens
            served = chat.complete(server, name, sample.prompt, tokens)
            # A character cut in its middle is shown by transformers and withheld by vLLM.
            assert served.strip().rstrip("\ufffd") == sample.tuned.strip().rstrip("\ufffd"), sample.prompt
    return deployment


def processes_of(pod: Object) -> dict[int, str]:
    """Command lines of a pod's processes, by their ids on this machine, where the cluster's only node runs."""
    uid = pod["metadata"]["uid"]
    marks = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            cgroups = (folder / "cgroup").read_text()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # It has ended meanwhile.
        if any(mark in cgroups for mark in marks):
            commands[int(folder.name)] = words
    return commands


def joins_rendezvous(address: str) -> bool:
    """Whether torch's own client can use the store of the pods' rendezvous without knowing the run's key."""
    from torch.distributed import DistNetworkError, DistStoreError, TCPStore

    with socket.create_connection((address, MASTER_PORT), timeout=10):
        pass  # It can be reached: what follows is not refused by the network.
    try:
        store = TCPStore(address, MASTER_PORT, is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False)
        store.set("stranger", "1")
        return bool(store.get("stranger") == b"1")
    except (DistNetworkError, DistStoreError):
        return False


def stop_rank(pod: Object) -> int:
    """Stop a training process of the pod, not its launcher, by SIGSTOP, so that no step follows; returns its id.

    Raises:
        AssertionError: the pod has no training process.
    """
    known = processes_of(pod)
    # torchrun's own command line ends with the rank's, but gives the number of nodes first.
    ranks = [pid for pid, words in known.items() if words.endswith("-m hone_trainer.train") and "--nnodes" not in words]
    assert ranks, f"no rank among the pod's processes: {known}"
    os.kill(ranks[0], signal.SIGSTOP)
    return ranks[0]


def evict(kube: Kube, pod: Object) -> None:
    """Evict the pod by the Eviction API, as a node drain does; it has its grace.

    Raises:
        KubeError: the API server refuses.
    """
    meta = {key: pod["metadata"][key] for key in ("name", "namespace")}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    where = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
    kube.run("create", "--raw", where, "-f", "-", stdin=json.dumps(body))


def replace_operator(kube: Kube, seconds: float = 120) -> None:
    """Delete the operator's pod, and return when another one is ready.

    Raises:
        AssertionError: none was ready within `seconds`.
    """
    system, label = kube.within(install.SYSTEM_NAMESPACE), "app.kubernetes.io/component=operator"
    old = {pod["metadata"]["uid"] for pod in system.list("pod", label)}
    assert old, "no operator runs"
    system.run("delete", "pod", f"--selector={label}", "--wait=false")

    def another_is_ready() -> bool:
        return any(pod["metadata"]["uid"] not in old and is_true(pod, "Ready") for pod in system.list("pod", label))

    until(another_is_ready, "another operator is ready", seconds)


def train_pods(kube: Kube, uid: str) -> list[Object]:
    """The job's trainer pods that run, by their index."""
    pods = kube.list("pod", f"hone.dev/uid={uid},hone.dev/step=train")
    running = [
        pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    return sorted(running, key=lambda pod: int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))
