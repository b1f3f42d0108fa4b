"""kubectl and helm as functions: every call has a deadline, and an error has the command and its output."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.cluster import build, paths

Object = dict[str, Any]


class KubeError(Exception):
    """A command that failed; its text is the command's output."""


def environment(kubeconfig: Path) -> dict[str, str]:
    """The process environment for a cluster; the local one is never reached through a proxy."""
    return {**os.environ, **paths.no_proxy(), "KUBECONFIG": str(kubeconfig)}


def command(name: str) -> Path:
    """The path of kubectl or helm: the one that is installed, else one that is built."""
    if path := shutil.which(name):
        return Path(path)
    build.ensure([build.tool_of(name)])
    return build.binary(name)


class Kube:
    """A cluster, and a namespace in it.

    Args:
        kubeconfig: how to reach the cluster.
        namespace: the namespace of all calls; empty for objects that have none.
    """

    def __init__(self, kubeconfig: Path, namespace: str = "") -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        self._kubectl = command("kubectl")

    def within(self, namespace: str) -> "Kube":
        """The same cluster, in another namespace."""
        return Kube(self.kubeconfig, namespace)

    def _arguments(self, *arguments: str) -> list[str]:
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return [str(self._kubectl), *namespace, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """What kubectl prints.

        Raises:
            KubeError: it failed, or took longer than `seconds`.
        """
        try:
            result = subprocess.run(
                self._arguments(*arguments),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=environment(self.kubeconfig),
            )
        except subprocess.TimeoutExpired:
            raise KubeError(f"kubectl {' '.join(arguments[:4])}: no end after {seconds:.0f} s") from None
        if result.returncode:
            raise KubeError(f"kubectl {' '.join(arguments[:4])}: {result.stderr.strip()}")
        return result.stdout

    def apply(self, *manifests: Object, manager: str = "hone-dev") -> None:
        """Server-side apply of manifests."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.run("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-", stdin=text)

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        text = self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """The objects of a kind, by label selector."""
        chosen = ["--selector", selector] if selector else []
        items: list[Object] = json.loads(self.run("get", kind, *chosen, "-o", "json"))["items"]
        return items

    def wait(
        self,
        kind: str,
        name: str,
        holds: Callable[[Object], bool],
        what: str,
        seconds: float,
        interval: float = 1.0,
    ) -> Object:
        """Poll an object until `holds` is true for it.

        Raises:
            KubeError: it did not come to that within `seconds`; says what the object's status was.
        """
        deadline = time.monotonic() + seconds
        while True:
            obj = self.get(kind, name)
            if obj is not None and holds(obj):
                return obj
            if time.monotonic() > deadline:
                status = json.dumps((obj or {}).get("status"), indent=1)[:4000] if obj else "it does not exist"
                raise KubeError(f"{kind}/{name}: {what} did not happen within {seconds:.0f} s; its status: {status}")
            time.sleep(interval)

    @contextmanager
    def port_forward(self, target: str, port: int | str, seconds: float = 30) -> Iterator[str]:
        """The URL on this machine at which `target`, such as `service/x`, answers while the block runs."""
        process = subprocess.Popen(
            self._arguments("port-forward", target, f":{port}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(self.kubeconfig),
        )
        lines: list[str] = []
        opened = threading.Event()
        local: list[str] = []

        def read() -> None:
            for line in process.stdout or ():
                lines.append(line)
                if match := re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
                    local.append(match.group(1))
                    opened.set()
            opened.set()

        threading.Thread(target=read, daemon=True).start()
        try:
            if not opened.wait(seconds) or not local:
                raise KubeError(f"kubectl port-forward {target}: {''.join(lines[-5:]).strip() or 'no answer'}")
            yield f"http://127.0.0.1:{local[0]}"
        finally:
            process.terminate()
            process.wait(timeout=10)


def helm(kubeconfig: Path, *arguments: str, seconds: float = 300) -> str:
    """What helm prints.

    Raises:
        KubeError: it failed, or took longer than `seconds`.
    """
    try:
        result = subprocess.run(
            [str(command("helm")), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment(kubeconfig),
        )
    except subprocess.TimeoutExpired:
        raise KubeError(f"helm {arguments[0]}: no end after {seconds:.0f} s") from None
    if result.returncode:
        raise KubeError(f"helm {arguments[0]}: {result.stderr.strip()}")
    return result.stdout


def condition(resource: Object, kind: str) -> Object:
    """The condition of that type, or an empty one."""
    conditions = (resource.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_true(resource: Object, kind: str) -> bool:
    """Whether the condition of that type is True."""
    return condition(resource, kind).get("status") == "True"
