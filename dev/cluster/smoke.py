"""Two restricted pods that prove the cluster: DNS, a Service, a shared volume that a non-root user writes to."""

import urllib.error
from typing import Any

from dev.cluster import build, containerd, paths
from dev.cluster.api import Api
from dev.cluster.say import say, step, wait_until

NAMESPACE = "hone-smoke"
GANG = "gang"
USER = 65532
_SECONDS = 120.0


def objects() -> dict[str, dict[str, Any]]:
    """What is applied, by URL: a namespace that admits only restricted pods, a claim, two Services, an Indexed Job."""
    base, labels = f"/api/v1/namespaces/{NAMESPACE}", {"job-name": GANG}
    hosts = [f"{GANG}-{index}.{GANG}" for index in range(2)]
    arguments = [
        "-write=/data/$(JOB_COMPLETION_INDEX)",
        "-read=/data/0,/data/1",
        f"-resolve={','.join(hosts)}",
        f"-get=http://{hosts[0]}:8080,http://{hosts[1]}:8080,http://web",
    ]
    container = {
        "name": "probe",
        "image": containerd.node_image(),
        "command": ["/probe", *arguments],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "subdomain": GANG,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        base: {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}},
        f"{base}/persistentvolumeclaims/data": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
        f"{base}/services/{GANG}": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": GANG},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels},
        },
        f"{base}/services/web": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{GANG}": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": GANG},
            "spec": {
                "completionMode": "Indexed",
                "completions": 2,
                "parallelism": 2,
                "backoffLimit": 0,
                "template": {"spec": pod},
            },
        },
    }


def run() -> None:
    """Run the gang and remove it.

    Raises RuntimeError with the pods' logs when it does not succeed.
    """
    build.ensure(["node"])
    containerd.push_node_image()
    api = Api(paths.kubeconfig())
    namespace, job = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{GANG}"
    _remove(api, namespace)
    try:
        with step("a gang of two restricted pods with DNS, a Service and a shared volume"):
            for path, manifest in objects().items():
                api.apply(path, manifest)
            wait_until(lambda: _has(api, job, "Complete") or _has(api, job, "Failed"), "the gang's end", _SECONDS)
            if _has(api, job, "Failed"):
                raise RuntimeError("the gang failed")
    except (RuntimeError, TimeoutError) as error:
        raise RuntimeError(f"{error}\n{_logs(api, namespace)}") from None
    else:
        say(f"it holds:\n{_logs(api, namespace)}")
    finally:
        _remove(api, namespace)


def _has(api: Api, job: str, condition: str) -> bool:
    conditions = api.get(job).get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def _logs(api: Api, namespace: str) -> str:
    parts = []
    for pod in api.get(f"{namespace}/pods")["items"]:
        name, phase = pod["metadata"]["name"], pod["status"].get("phase")
        try:
            text = api.get(f"{namespace}/pods/{name}/log")
        except urllib.error.URLError as error:
            text = f"(no log: {error})"
        parts.append(f"--- {name} ({phase})\n{text}")
    return "\n".join(parts)


def _remove(api: Api, namespace: str) -> None:
    if api.exists(namespace):
        api.call("DELETE", namespace)
        wait_until(lambda: not api.exists(namespace), f"the removal of namespace {NAMESPACE}", _SECONDS)
