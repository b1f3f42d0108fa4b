"""A few calls to an API server with the standard library alone, to start clusters; Hone uses the real client."""

import base64
import json
import ssl
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev.cluster.say import wait_until

FIELD_MANAGER = "hone-dev-cluster"
SECONDS = 60
"""How long an answer may take: an API server that has just started checks a large CRD for 10 s on a busy machine."""


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether GET `url`, plain HTTP and past any proxy, is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Api:
    """An API server, as the user of `kubeconfig` (which must have been written by certs.py)."""

    def __init__(self, kubeconfig: Path):
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        self._context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            file.flush()
            self._context.load_cert_chain(file.name)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """The answer's JSON (or its text when it is none).

        Raises OSError: urllib.error.URLError and its HTTPError, or a timeout.
        """
        request = urllib.request.Request(self.server + path, method=method, headers={"Content-Type": content_type})
        data = None if body is None else json.dumps(body).encode()
        with self._opener.open(request, data, timeout=SECONDS) as response:
            text = response.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def apply(self, path: str, manifest: dict[str, Any]) -> Any:
        """Server-side apply of `manifest` at `path`, the object's own URL."""
        query = f"fieldManager={FIELD_MANAGER}&force=true"
        return self.call("PATCH", f"{path}?{query}", manifest, "application/apply-patch+yaml")

    def apply_crd(self, manifest: dict[str, Any]) -> None:
        """Server-side apply of a CustomResourceDefinition; returns when its kind can be used.

        Raises TimeoutError when it cannot after two minutes.
        """
        name = manifest["metadata"]["name"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        self.apply(path, manifest)

        def established() -> bool:
            conditions = self.get(path).get("status", {}).get("conditions") or []
            return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

        wait_until(established, f"{name} being established", 120)

    def ready(self) -> bool:
        try:
            return bool(self.get("/readyz") == "ok")
        except OSError:
            return False

    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`; a server that does not answer has none."""
        try:
            self.get(path)
            return True
        except OSError:
            return False


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
