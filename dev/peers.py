"""Kubeflow Trainer and JobSet as processes on a temporary control plane, to compare Hone with.

Both are built from their Go modules (`dev/cluster/tools/peers`), with the CRDs, webhooks and runtime that lie in them,
and run with the settings of their releases. They may do anything on the control plane.
"""

import base64
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dev.cluster import build
from dev.cluster.api import answers
from dev.cluster.certs import Authority, Subject
from dev.cluster.controlplane import ControlPlane, free_ports
from dev.lock import locked
from tests.integration.identity import TOKEN_SECONDS, where

Object = dict[str, Any]
JOBSET, TRAINER = "jobset", "trainer-controller-manager"
RUNTIME = "torch-distributed"
TRAINER_NAMESPACE, TRAINER_SERVICE = "kubeflow-system", "kubeflow-trainer-controller-manager"
TRAINER_SECRET = "kubeflow-trainer-webhook-cert"
TRAINER_WEBHOOKS = "validator.trainer.kubeflow.org"
TRAINER_CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")
"""Where the Trainer looks for the certificate that it writes into its Secret; it cannot be told another place."""
READY_SECONDS = 120.0


def account(plane: ControlPlane, namespace: str) -> Path:
    """A kubeconfig for a service account `manager` of its own that may do anything."""
    api, name = plane.api, "manager"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    for manifest in (
        _object("v1", "Namespace", namespace),
        _object("v1", "ServiceAccount", name, namespace),
        {
            **_object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", namespace),
            "subjects": [subject],
            "roleRef": role,
        },
    ):
        api.apply(where(manifest), manifest)
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    answer = api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer["status"]["token"]}
    file = plane.folder / f"{namespace}.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
    return file


def user(namespace: str) -> str:
    """How the API server calls the account of `account`."""
    return f"system:serviceaccount:{namespace}:manager"


@contextmanager
def started(plane: ControlPlane) -> Iterator[tuple[str, ...]]:
    """Both managers, ready for TrainJobs. Gives the names of their processes.

    Raises:
        RuntimeError: one of them ended; with the end of its log.
    """
    build.ensure(["peers"])
    with locked(TRAINER_CERTIFICATES.with_name("hone-bench.lock"), "another benchmark with Kubeflow Trainer"):
        try:
            _start_jobset(plane)
            _start_trainer(plane)
            yield JOBSET, TRAINER
        finally:
            for name in (TRAINER, JOBSET):
                plane.processes.stop(name, grace=0.0)
            for file in ("tls.crt", "tls.key"):
                (TRAINER_CERTIFICATES / file).unlink(missing_ok=True)


def _start_jobset(plane: ControlPlane) -> None:
    """JobSet with certificates of the control plane's authority, so that it needs no Secret that a kubelet mounts."""
    sources = build.module("peers", "sigs.k8s.io/jobset")
    folder, (port, probes) = plane.folder / JOBSET, free_ports(2)
    authority = Authority(plane.folder / "certs")
    certificate, key = authority.issue(JOBSET, Subject(JOBSET, (), ("IP:127.0.0.1",)))
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(certificate.read_bytes())
    (folder / "tls.key").write_bytes(key.read_bytes())
    config = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "webhook": {"port": port, "host": "127.0.0.1", "certDir": str(folder)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{probes}"},
        "metrics": {"bindAddress": "0"},
    }
    _apply_files(plane, *(sources / "config/components/crd/bases").glob("*.yaml"))
    for webhooks in _documents(sources / "config/components/webhook/manifests.yaml"):
        for webhook in webhooks["webhooks"]:
            url = f"https://127.0.0.1:{port}{webhook['clientConfig']['service']['path']}"
            webhook["clientConfig"] = {"url": url, "caBundle": _base64(authority.certificate.read_bytes())}
            if webhook["rules"][0]["resources"] == ["pods"]:  # config/components/webhook/patches
                expression = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
                webhook["objectSelector"] = {"matchExpressions": [expression]}
        webhooks["metadata"]["name"] = f"jobset-{webhooks['metadata']['name']}"
        plane.api.apply(where(webhooks), webhooks)
    file = folder / "config.yaml"
    command: list[str | Path] = [build.binary(JOBSET), f"--config={file}", "--zap-log-level=error"]
    environment = {"KUBECONFIG": str(account(plane, "jobset-system"))}
    plane.processes.start(JOBSET, command, environment, {file: json.dumps(config)})
    _wait_ready(plane, JOBSET, probes)


def _start_trainer(plane: ControlPlane) -> None:
    """The Trainer, which makes its certificates itself: they are put where a kubelet would mount its Secret."""
    sources = build.module("peers", "github.com/kubeflow/trainer/v2")
    port, probes = free_ports(2)
    kubeconfig = account(plane, TRAINER_NAMESPACE)
    _apply_files(plane, *(sources / "manifests/base/crds").glob("trainer*.yaml"))
    service = _object("v1", "Service", TRAINER_SERVICE, TRAINER_NAMESPACE)
    service["spec"] = {"type": "ExternalName", "externalName": "127.0.0.1"}
    secret = _object("v1", "Secret", TRAINER_SECRET, TRAINER_NAMESPACE)
    for manifest in (service, secret):
        plane.api.apply(where(manifest), manifest)
    for webhooks in _documents(sources / "manifests/base/webhook/manifests.yaml"):
        webhooks["metadata"]["name"] = TRAINER_WEBHOOKS
        for webhook in webhooks["webhooks"]:
            client = webhook["clientConfig"]["service"]
            client |= {"namespace": TRAINER_NAMESPACE, "name": TRAINER_SERVICE, "port": port}
        plane.api.call("POST", where(webhooks).rpartition("/")[0], webhooks)
    command: list[str | Path] = [
        build.binary(TRAINER),
        f"--webhook-server-port={port}",
        f"--health-probe-bind-address=127.0.0.1:{probes}",
        "--zap-log-level=error",
    ]
    plane.processes.start(TRAINER, command, {"KUBECONFIG": str(kubeconfig)})
    plane.processes.wait_ready(TRAINER, functools.partial(_mount_certificates, plane, where(secret)), READY_SECONDS)
    _wait_ready(plane, TRAINER, probes)
    _apply_files(plane, sources / "manifests/base/runtimes/torch_distributed.yaml")


def _mount_certificates(plane: ControlPlane, secret: str) -> bool:
    """Write the Secret's certificate, once it has one, to where the Trainer looks for it."""
    data = plane.api.get(secret).get("data") or {}
    if not data.get("tls.crt"):
        return False
    TRAINER_CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for name in ("tls.key", "tls.crt"):
        file = TRAINER_CERTIFICATES / name
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(data[name]))
    return True


def _wait_ready(plane: ControlPlane, name: str, port: int) -> None:
    plane.processes.wait_ready(name, lambda: answers(f"http://127.0.0.1:{port}/readyz"), READY_SECONDS)


def _apply_files(plane: ControlPlane, *files: Path) -> None:
    """Apply manifests; the kinds of CustomResourceDefinitions can be used when this returns."""
    for file in files:
        for manifest in _documents(file):
            if manifest["kind"] == "CustomResourceDefinition":
                plane.api.apply_crd(manifest)
            else:
                plane.api.apply(where(manifest), manifest)


def _documents(file: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def _object(api_version: str, kind: str, name: str, namespace: str = "") -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
