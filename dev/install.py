"""Put Hone into a cluster: namespaces, the chart with the images that were built, the base model on a volume."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dev.images import values
from dev.kube import Kube, Object, helm, is_true
from dev.uv import ROOT, cache_dir

CHART = ROOT / "charts/hone"
RELEASE = "hone"
SYSTEM_NAMESPACE = "hone-system"
MODEL_CLAIM = "base-models"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


def images(models: str = "hone-base-models") -> dict[str, str]:
    """The images that `python3 -m dev.images build` built, by name.

    Args:
        models: the image with the base model that is needed in addition to the chart's images.

    Raises:
        SystemExit: they are not built.
    """
    path = cache_dir() / "images.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    missing = sorted({*values.KEYS, models} - set(known))
    if missing:
        raise SystemExit(f"error: not built: {', '.join(missing)}: run `make images` first")
    return known


def namespace(kube: Kube, name: str) -> None:
    """Make the namespace, which admits only restricted pods."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})


def install(kube: Kube, references: Mapping[str, str], extra: Object | None = None, seconds: int = 300) -> str:
    """Install or upgrade the chart and wait until the operator is ready; returns what helm says.

    Args:
        kube: the cluster.
        references: images by name.
        extra: further values of the chart, by top-level key.
        seconds: how long the operator may take.
    """
    namespace(kube, SYSTEM_NAMESPACE)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "values.json"
        file.write_text(json.dumps({**values.values(references), **(extra or {})}))
        options = ("--namespace", SYSTEM_NAMESPACE, "--values", str(file), "--wait", "--timeout", f"{seconds}s")
        return helm(kube.kubeconfig, "upgrade", "--install", RELEASE, str(CHART), *options, seconds=seconds + 60)


def uninstall(kube: Kube) -> None:
    """Remove the release; the CRDs stay.

    Raises:
        KubeError: there is no release.
    """
    helm(kube.kubeconfig, "uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait", "--timeout", "120s")


def base_models(kube: Kube, image: str, seconds: int = 600) -> None:
    """Ensure the models of an image on the claim `base-models` of the namespace.

    Raises:
        KubeError: the Job that copies it did not complete.
    """
    name = f"base-models-{image.rpartition(':')[2]}"
    kube.apply(_claim())
    if kube.get("job", name) is None:
        kube.run("create", "-f", "-", stdin=json.dumps(_copy_job(name, image)))
    done = kube.wait("job", name, lambda job: is_true(job, "Complete") or is_true(job, "Failed"), "its end", seconds)
    if is_true(done, "Failed"):
        kube.run("delete", "job", name)
        raise SystemExit(f"error: the Job {name}, which copies the base model, failed: {done['status']['conditions']}")


def _claim() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": MODEL_CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def _copy_job(name: str, image: str) -> Object:
    # By a temporary name, so that a half-copied model is never found under its own.
    script = """
        set -eu
        rm -rf /mnt/volume/.new && cp -r /models /mnt/volume/.new
        for model in /mnt/volume/.new/*; do
            rm -rf "/mnt/volume/${model##*/}" && mv "$model" /mnt/volume/
        done
        rm -rf /mnt/volume/.new
    """
    container = {
        "name": "copy",
        "image": image,
        "command": ["sh", "-c", script],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "volume", "mountPath": "/mnt/volume"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": MODEL_CLAIM}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 3, "template": {"spec": pod}},
    }
