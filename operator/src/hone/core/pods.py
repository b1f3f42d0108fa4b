"""What a pod's status shows: whether it started, what keeps it from starting, how it ended."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hone.core import reported
from hone.core.names import COMPLETION_INDEX_LABEL
from hone.core.observed import Object, Pod
from hone.core.times import seconds_since

_STARTING = {"ContainerCreating", "PodInitializing"}
_SYNONYMS = {"ErrImagePull": "ImagePullBackOff"}
"""Reasons that alternate while the kubelet retries; one name keeps conditions and events from flapping."""
CLAIM_NOT_BOUND = "ClaimNotBound"
"""Reason of a pod whose claim has no volume yet."""
_UNBOUND = "unbound immediate PersistentVolumeClaims"
"""Part of the scheduler's message for a claim that has no volume yet (plugin VolumeBinding)."""


IMAGE_VOLUMES_NEED = (
    "image volumes need Kubernetes 1.35, or 1.33 with the feature gate ImageVolume on the API server and the kubelets, "
    "and containerd 2.1 or CRI-O 1.31; without these, copy the files to a claim and set claim instead of image"
)
NOT_CREATED = ("CreateContainerError", "CreateContainerConfigError", "RunContainerError")
"""Reasons of a container that the kubelet or the container runtime could not create, such as without its volume."""


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from running: reason and message of the scheduler or the kubelet."""

    reason: str
    message: str


def may_lack_image_volumes(trouble: Trouble) -> bool:
    """Whether this can be the trouble of a pod whose image volume the cluster cannot mount."""
    # A Secret or ConfigMap that does not exist is named by the kubelet.
    return trouble.reason in NOT_CREATED and not trouble.message.endswith("not found")


def without_image_volumes(trouble: Trouble) -> Trouble:
    """What keeps a pod with an image volume from starting, with what the cluster may lack."""
    needs = f"; {IMAGE_VOLUMES_NEED}" if may_lack_image_volumes(trouble) else ""
    return Trouble(trouble.reason, trouble.message + needs)


def of_job(pods: Iterable[Pod], job: str) -> tuple[Pod, ...]:
    """The pods that the Job of that name controls. A label would not do: whoever creates a pod chooses its labels."""
    return tuple(pod for pod in pods if _controller(pod) == ("Job", job))


def _controller(pod: Pod) -> tuple[str, str] | None:
    """Kind and name of what controls a pod."""
    owners = pod.raw["metadata"].get("ownerReferences") or []
    return next(((owner["kind"], owner["name"]) for owner in owners if owner.get("controller")), None)


def index(pod: Pod) -> int | None:
    """The pod's index in an Indexed Job."""
    value = (pod.raw["metadata"].get("labels") or {}).get(COMPLETION_INDEX_LABEL)
    return int(value) if value and re.fullmatch("[0-9]{1,9}", value) else None


def phase(pod: Pod) -> str:
    """The pod's phase; Pending where it has none yet."""
    return str((pod.raw.get("status") or {}).get("phase", "Pending"))


def is_over(pod: Pod) -> bool:
    """Whether none of the pod's containers will run again."""
    return pod.gone or phase(pod) in ("Succeeded", "Failed")


STEADY_SECONDS = 600.0
"""How long a sidecar that ended runs until it no longer counts as crashing; the kubelet's back-off ends then, too."""
SIDECAR = "vllm"
"""Name of the container that generates answers alongside the ranks. The kubelet starts it again by itself: neither its
running nor its end says anything of the pod's."""


def container(pod: Pod) -> Object:
    """The status of the pod's container, empty where there is none yet. All our pods have one, and servers run an init
    container before it."""
    statuses = (pod.raw.get("status") or {}).get("containerStatuses") or [{}]
    return dict(statuses[0])


def init_containers(pod: Pod) -> list[Object]:
    """The statuses of what runs before the pod's container."""
    return [status for status in _init_statuses(pod) if status.get("name") != SIDECAR]


def _init_statuses(pod: Pod) -> list[Object]:
    return [dict(status) for status in (pod.raw.get("status") or {}).get("initContainerStatuses") or []]


def ends(pod: Pod) -> list[dict[str, Any]]:
    """How those of the pod's containers ended that have, in the order in which they run."""
    states = (status.get("state") or {} for status in (*init_containers(pod), container(pod)))
    return [dict(state["terminated"]) for state in states if state.get("terminated")]


def terminated(pod: Pod) -> dict[str, Any] | None:
    """How the pod's container ended, or what failed before it could start; None where nothing has."""
    if ended := (container(pod).get("state") or {}).get("terminated"):
        return dict(ended)
    return next((end for end in ends(pod) if end.get("exitCode") != 0), None)


def has_started(pod: Pod) -> bool:
    """Whether any of the pod's containers has ever run."""
    states = (status.get("state") or {} for status in (*init_containers(pod), container(pod)))
    return started_at(pod) is not None or any(state.get("running") for state in states)


def started_at(pod: Pod) -> str | None:
    """When the first of the pod's containers began to run."""
    for status in (*init_containers(pod), container(pod)):
        state = status.get("state") or {}
        for kind in ("running", "terminated"):
            if moment := (state.get(kind) or {}).get("startedAt"):
                return str(moment)
    return None


def ended_at(pod: Pod) -> str | None:
    """When the pod's container ended, or None where it has not."""
    return (terminated(pod) or {}).get("finishedAt")


def condition(pod: Pod, kind: str) -> dict[str, Any] | None:
    """The pod's condition of that type, or None."""
    conditions = (pod.raw.get("status") or {}).get("conditions") or []
    return next((dict(entry) for entry in conditions if entry.get("type") == kind), None)


def trouble(pods: Iterable[Pod]) -> Trouble | None:
    """What keeps the first of these pods from running, or None."""
    for pod in pods:
        if is_over(pod) or "deletionTimestamp" in pod.raw["metadata"]:
            continue
        scheduled = condition(pod, "PodScheduled")
        if scheduled and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            message = str(scheduled.get("message", ""))
            # A separate reason: most claims are bound within seconds, and a later reason must still be reported.
            reason = CLAIM_NOT_BOUND if _UNBOUND in message else "Unschedulable"
            return Trouble(reason, f"pod {pod.raw['metadata']['name']}: {message}")
        for status in (*_init_statuses(pod), container(pod)):
            waiting = (status.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            if reason and reason not in _STARTING:
                message = str(waiting.get("message") or "no details")
                # "Back-off pulling image …: ErrImagePull: <cause>" alternates with the bare cause.
                cause = message.partition(": ErrImagePull: ")[2] or message
                return Trouble(_SYNONYMS.get(reason, reason), f"pod {pod.raw['metadata']['name']}: {cause}")
    return None


def sidecar_trouble(pods: Iterable[Pod], now: datetime) -> Trouble | None:
    """What keeps the server in the first of these pods from running, with its last words; None where nothing does."""
    for pod in pods:
        for status in () if is_over(pod) else _init_statuses(pod):
            ended = (status.get("lastState") or {}).get("terminated")
            if status.get("name") == SIDECAR and ended and not _is_steady(status, now):
                name, words = pod.raw["metadata"]["name"], str(ended.get("message") or "").strip().splitlines()
                last = reported.text(words[-1]) if words else f"exit code {ended.get('exitCode')}"
                why = f"`kubectl logs {name} -c {SIDECAR}` shows why"
                message = f"pod {name}: the server that generates answers ends again and again: {last}; {why}"
                return Trouble("CrashLoopBackOff", message)
    return None


def _is_steady(status: Object, now: datetime) -> bool:
    """Whether a sidecar that has ended before runs again for good.

    Also between two crashes, while it loads its model, it is as it was: each change of the condition would be an Event.
    Without a probe the kubelet calls it ready as soon as it runs.
    """
    running = (status.get("state") or {}).get("running")
    return bool(running and seconds_since(running.get("startedAt"), now) >= STEADY_SECONDS)
