"""A search for planted secrets in all that a life leaves or shows: objects, logs, volumes, and processes of pods."""

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.kube import Kube, KubeError

SHOWN = "finetunejob,modeldeployment,event,configmap,pod,job,deployment,replicaset,service,networkpolicy,pvc"
_SECONDS = 0.3


class Processes:
    """The processes of pods on this machine, where the cluster's only node runs, as they are seen again and again.

    Args:
        secrets: what to search for.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self.commands: set[str] = set()
        """Command lines of all that were seen."""
        self.with_secret_argument: set[str] = set()
        self.with_secret_variable: set[str] = set()
        """Command lines of those that have a secret among their arguments or variables."""

    @contextmanager
    def watched(self) -> Iterator["Processes"]:
        """Look while the block runs."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(_SECONDS):
                self.look()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def look(self) -> None:
        """See which processes there are now."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if "/pod" not in (folder / "cgroup").read_text():
                    continue
                arguments, variables = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue  # It has ended meanwhile.
            command = arguments.replace(b"\0", b" ").decode(errors="replace").strip()
            self.commands.add(command)
            if any(secret in arguments for secret in self._secrets):
                self.with_secret_argument.add(command)
            if any(secret in variables for secret in self._secrets):
                self.with_secret_variable.add(command)


def shown(kube: Kube) -> dict[str, str]:
    """All objects of a namespace but Secrets, and the logs of all its containers, by what they are."""
    texts = {"objects": kube.run("get", SHOWN, "-o", "json")}
    for pod in kube.list("pod"):
        name = pod["metadata"]["name"]
        try:
            texts[f"log of {name}"] = kube.run("logs", name, "--all-containers", "--prefix")
        except KubeError:
            continue  # It has not started.
    return texts


def volumes(kube: Kube) -> Iterator[tuple[Path, bytes]]:
    """Every file on the claims of a namespace, which are directories of this machine."""
    for volume in json.loads(kube.run("get", "pv", "-o", "json"))["items"]:
        if volume["spec"].get("claimRef", {}).get("namespace") != kube.namespace:
            continue
        place = volume["spec"].get("hostPath") or volume["spec"].get("local")
        for path in Path(place["path"]).rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()
