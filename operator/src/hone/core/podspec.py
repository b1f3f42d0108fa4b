"""The parts of a pod that every pod of ours shares: restricted security, mounts, resources, the user's settings."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.api.meta import EnvVar, PodSettings, ResourceRequirements
from hone.core.children import metadata
from hone.core.names import MAX_LABEL, unique
from hone.core.observed import Object

USER = 65532
"""User, group and file-system group of every pod."""

POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
SECRET_MODE = 0o440
"""Mode of the files of a Secret: the pod's user reads them as a member of the pod's group."""
CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What the Pod Security level "restricted" requires, and a read-only root file system."""

_NO_SIDECARS_LABELS = {"sidecar.istio.io/inject": "false"}
_NO_SIDECARS_ANNOTATIONS = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
"""A sidecar would keep the pod running after its work is done, and intercept the traffic between the ranks."""


@dataclass(frozen=True)
class ClaimMount:
    """A PersistentVolumeClaim, or a directory of it, at a path.

    The kubelet follows no link out of the volume on the way to that directory.
    """

    claim: str
    path: str
    read_only: bool = True
    sub_path: str | None = None


@dataclass(frozen=True)
class ConfigMapMount:
    """One key of a ConfigMap as a file, `<path>/<file>`."""

    config_map: str
    key: str
    path: str
    file: str


@dataclass(frozen=True)
class SecretMount:
    """The entries of a Secret as files of a directory, which the kubelet renews; empty without the Secret."""

    secret: str
    path: str


@dataclass(frozen=True)
class ImageMount:
    """The file system of an OCI image, read-only. The kubelet pulls it with the pull secrets of the pod."""

    reference: str
    path: str


@dataclass(frozen=True)
class ScratchMount:
    """An empty directory that ends with the pod."""

    name: str
    path: str
    memory: bool = False
    size: str | None = None
    read_only: bool = False


Mount = ClaimMount | ConfigMapMount | SecretMount | ImageMount | ScratchMount


def scratch(shm_size: str) -> tuple[ScratchMount, ...]:
    """In every pod: the root file system is read-only, and processes share tensors through /dev/shm.

    A pod that fills /tmp is evicted before it fills the node's disk and affects other pods. What is in /dev/shm counts
    as the pod's memory.
    """
    return ScratchMount("tmp", "/tmp", size="10Gi"), ScratchMount("shm", "/dev/shm", memory=True, size=shm_size)


@dataclass(frozen=True)
class InitContainer:
    """A container that has to succeed before the pod's own starts.

    Attributes:
        container: the container; mounts and security are added by `pod_template`.
        mounts: its mounts in addition to those of `scratch`; it has none of the pod's container.
    """

    container: Object
    mounts: Sequence[Mount]


def resources(
    requested: ResourceRequirements | None,
    defaults: Mapping[str, str],
    gpus: int = 0,
    gpu_resource: str = "",
    memory_limit: str | None = None,
) -> dict[str, Any]:
    """A container's resources: those that the user requested, or the default requests; GPUs as limits.

    Args:
        requested: the user's.
        defaults: requests of a container for which the user requests nothing.
        gpus: its GPUs.
        gpu_resource: their resource in Kubernetes.
        memory_limit: its memory limit where the user mentions no memory; None: no limit.
    """
    fields: dict[str, Any] = requested.to_dict() if requested else {"requests": dict(defaults)}
    requests, limits = fields.get("requests", {}), fields.get("limits", {})
    if memory_limit and "memory" not in limits and (requested is None or "memory" not in requests):
        reserved = {**requests, "memory": requests.get("memory", defaults["memory"])}
        fields |= {"requests": reserved, "limits": {**limits, "memory": memory_limit}}
    if gpus:
        fields["limits"] = {**fields.get("limits", {}), gpu_resource: str(gpus)}
    return fields


def env(values: Mapping[str, str], users: Iterable[EnvVar] = (), user_wins: bool = False) -> list[dict[str, Any]]:
    """Environment variables, ours and the user's, each name once; the user's may come from a Secret."""
    ours = {name: {"name": name, "value": value} for name, value in values.items()}
    theirs = {entry.name: _variable(entry) for entry in users}
    return list(({**ours, **theirs} if user_wins else {**theirs, **ours}).values())


def _variable(entry: EnvVar) -> dict[str, Any]:
    if entry.value_from:
        return {"name": entry.name, "valueFrom": entry.value_from.to_dict()}
    return {"name": entry.name, "value": entry.value or ""}


def secret_volume(path: str) -> str:
    """Name of the volume of a Secret that is mounted at a path."""
    return _volume("secret", path)


def _volume(kind: str, path: str) -> str:
    """Name of the volume that is mounted at a path: a DNS label, so that of another path ends with a hash."""
    name = f"{kind}-{path.strip('/').replace('/', '-')}"
    return name if len(name) <= MAX_LABEL and re.fullmatch("[-a-z0-9]+", name) else unique(kind, path)


def _volumes(mounts: Sequence[Mount]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes, and a mount of each. A claim is one volume even if mounted twice: two can hang the kubelet.

    A claim that is only read is a read-only volume, too: its files keep their owner and cannot be changed.
    """
    written = {mount.claim for mount in mounts if isinstance(mount, ClaimMount) and not mount.read_only}
    volumes: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    container_mounts: list[dict[str, Any]] = []
    for mount in mounts:
        fields: dict[str, Any] = {"mountPath": mount.path}
        if isinstance(mount, ClaimMount):
            name = names.setdefault(mount.claim, f"claim-{len(names)}")
            read_only = {} if mount.claim in written else {"readOnly": True}
            volumes[name] = {"name": name, "persistentVolumeClaim": {"claimName": mount.claim, **read_only}}
            fields |= {"subPath": mount.sub_path} if mount.sub_path else {}
        elif isinstance(mount, ConfigMapMount):
            name = _volume("file", mount.path)
            items = [{"key": mount.key, "path": mount.file}]
            volumes[name] = {"name": name, "configMap": {"name": mount.config_map, "items": items}}
        elif isinstance(mount, SecretMount):
            name = secret_volume(mount.path)
            secret = {"secretName": mount.secret, "optional": True, "defaultMode": SECRET_MODE}
            volumes[name] = {"name": name, "secret": secret}
        elif isinstance(mount, ImageMount):
            name = names.setdefault(f"{mount.reference} as an image", f"image-{len(names)}")
            volumes[name] = {"name": name, "image": {"reference": mount.reference, "pullPolicy": "IfNotPresent"}}
        else:
            name = mount.name
            limit = {"sizeLimit": mount.size} if mount.size else {}
            volumes[name] = {"name": name, "emptyDir": {**({"medium": "Memory"} if mount.memory else {}), **limit}}
        if isinstance(mount, (ConfigMapMount, SecretMount, ImageMount)) or mount.read_only:
            fields["readOnly"] = True
        container_mounts.append({"name": name, **fields})
    return list(volumes.values()), container_mounts


def pod_template(
    resource: Object,
    step: str,
    container: Object,
    mounts: Sequence[Mount],
    settings: PodSettings | None,
    grace_seconds: int,
    shm_size: str,
    labels: Mapping[str, str] | None = None,
    init: InitContainer | None = None,
    **spec: Any,
) -> Object:
    """A pod template under restricted Pod Security, without a token.

    Args:
        resource: the resource that the pod belongs to.
        step: what the pod is for.
        container: the only container; mounts and security are added here.
        init: what runs before it.
        mounts: its mounts in addition to those of `scratch`.
        settings: what the user set on the pod.
        grace_seconds: seconds between SIGTERM and SIGKILL.
        shm_size: size of /dev/shm.
        labels: labels in addition to those of every child.
        spec: further fields of the pod's spec, in camelCase.
    """
    settings = settings or PodSettings()
    shared = scratch(shm_size)
    volumes, container_mounts = _volumes((*mounts, *shared, *(init.mounts if init else ())))
    count = len(mounts) + len(shared)
    before = [_restricted(init.container, container_mounts[len(mounts) :])] if init else []
    return {
        "metadata": _pod_metadata(resource, step, settings, labels or {}),
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_seconds,
            "securityContext": POD_SECURITY,
            **_placement(settings),
            **spec,
            **({"initContainers": before} if before else {}),
            "containers": [_restricted(container, container_mounts[:count])],
            "volumes": volumes,
        },
    }


def _restricted(container: Object, mounts: list[dict[str, Any]]) -> Object:
    return {**container, "volumeMounts": mounts, "securityContext": CONTAINER_SECURITY}


def _pod_metadata(resource: Object, step: str, settings: PodSettings, labels: Mapping[str, str]) -> Object:
    """Labels and annotations of a pod: the user's, then ours, which win."""
    meta = metadata(resource, "", step)
    return {
        "labels": {**(settings.labels or {}), **_NO_SIDECARS_LABELS, **meta["labels"], **labels},
        "annotations": {**(settings.annotations or {}), **_NO_SIDECARS_ANNOTATIONS, **meta["annotations"]},
    }


def _placement(settings: PodSettings) -> Object:
    """The user's settings for scheduling and for pulling images."""
    fields = {
        "nodeSelector": settings.node_selector,
        "tolerations": [entry.to_dict() for entry in settings.tolerations or []],
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class_name,
        "schedulerName": settings.scheduler_name,
        "imagePullSecrets": [entry.to_dict() for entry in settings.image_pull_secrets or []],
    }
    return {key: value for key, value in fields.items() if value}
