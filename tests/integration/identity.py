"""The operator's identity in the integration tests: its account with the rights and the policy of the chart."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.api import Api
from dev.cluster.say import wait_until
from hone.core.observed import Object
from hone.runtime.client import path

NAMESPACE = "hone-system"
KINDS = (
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
DENIED = "ValidatingAdmissionPolicy"
"""What every refusal by a policy begins with."""
TOKEN_SECONDS = 86_400
EFFECT_SECONDS = 60.0


@dataclass(frozen=True)
class Identity:
    """The operator as the API server knows it.

    Attributes:
        kubeconfig: a kubeconfig with its token.
        token: its token.
        server: URL of the API server.
        tls: trusts the API server.
    """

    kubeconfig: Path
    token: str
    server: str
    tls: ssl.SSLContext

    def request(
        self, method: str, url: str, body: Object | None = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and answer of a request with the operator's token."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + url, data, headers, method=method)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)
        )
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def create(self, namespace: str, body: Object) -> tuple[int, Any]:
        """Dry run of a creation."""
        return self.request("POST", f"{path(body['apiVersion'], body['kind'], namespace)}?dryRun=All", body)

    def apply(self, namespace: str, body: Object) -> tuple[int, Any]:
        """Dry run of a server-side apply."""
        url = path(body["apiVersion"], body["kind"], namespace, body["metadata"]["name"])
        query = "dryRun=All&force=true&fieldManager=hone"
        return self.request("PATCH", f"{url}?{query}", body, "application/apply-patch+yaml")

    def patch(self, namespace: str, target: Object, body: Object) -> tuple[int, Any]:
        """Dry run of a JSON merge patch of an object."""
        url = path(target["apiVersion"], target["kind"], namespace, target["metadata"]["name"])
        return self.request("PATCH", f"{url}?dryRun=All", body, "application/merge-patch+json")

    def delete(self, namespace: str, target: Object) -> tuple[int, Any]:
        """Dry run of a deletion."""
        url = path(target["apiVersion"], target["kind"], namespace, target["metadata"]["name"])
        return self.request("DELETE", f"{url}?dryRun=All")


def install(api: Api, admin: Path, manifests: list[Object], folder: Path) -> Identity:
    """Install account, rights and policy from the rendered chart, and wait for the policy to take effect."""
    identity = account(api, admin, manifests, folder)
    wait_until(lambda: _is_in_effect(identity), "the policy taking effect", EFFECT_SECONDS)
    return identity


def account(api: Api, admin: Path, manifests: list[Object], folder: Path) -> Identity:
    """Install account, rights and policy from the rendered chart."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api.apply(f"/api/v1/namespaces/{NAMESPACE}", body)
    grant(api, manifests)
    (service_account,) = (manifest for manifest in manifests if manifest["kind"] == "ServiceAccount")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    answer = api.call(
        "POST", f"{where(service_account)}/token", {**request, "spec": {"expirationSeconds": TOKEN_SECONDS}}
    )
    config = json.loads(admin.read_text())
    return _identity(config, answer["status"]["token"], folder / "operator.kubeconfig")


def grant(api: Api, manifests: list[Object]) -> None:
    """Apply account, rights and policy, as an upgrade of the release does."""
    for manifest in manifests:
        if manifest["kind"] in KINDS:
            api.apply(where(manifest), manifest)


def where(manifest: Object) -> str:
    """The URL path of an object of the chart."""
    meta = manifest["metadata"]
    return path(manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta["name"])


def _identity(config: dict[str, Any], token: str, file: Path) -> Identity:
    config["users"][0]["user"] = {"token": token}
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
    cluster = config["clusters"][0]["cluster"]
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    return Identity(file, token, cluster["server"], tls)


def _is_in_effect(identity: Identity) -> bool:
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stranger"}}
    _, answer = identity.create("default", stranger)
    return DENIED in answer.get("message", "")
