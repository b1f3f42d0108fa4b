"""kwok: fake nodes, and pods that pass through the phases that Stages say, without a container."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev.cluster import build
from dev.cluster.api import Api
from dev.cluster.processes import Processes

Manifest = dict[str, Any]

# Annotations that steer the default Stages: the exit code of a Job's pod (default 0) and its termination message.
EXIT_CODE = "test.hone.dev/exit-code"
MESSAGE = "test.hone.dev/termination-message"
GPU = "nvidia.com/gpu"

_NOT_DELETED = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}

_NODE_READY = """\
{{ $now := Now }}
conditions:
- type: Ready
  status: "True"
  reason: Fake
  message: a fake node
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
phase: Running
"""

_POD_RUNNING = """\
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
conditions:
{{ range $kind := list "Initialized" "Ready" "ContainersReady" }}
- {type: {{ $kind }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""

_POD_ENDED = """\
{{ $now := Now }}
{{ $annotations := or .metadata.annotations dict }}
{{ $code := or ( index $annotations "EXIT_CODE" ) "0" }}
{{ $message := or ( index $annotations "MESSAGE" ) "" }}
phase: {{ if eq $code "0" }}Succeeded{{ else }}Failed{{ end }}
conditions:
{{ range $kind := list "Ready" "ContainersReady" }}
- {type: {{ $kind }}, status: "False", reason: PodCompleted, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: {{ $code }}
      reason: {{ if eq $code "0" }}Completed{{ else }}Error{{ end }}
      message: {{ $message | Quote }}
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
{{ end }}
""".replace("EXIT_CODE", EXIT_CODE).replace("MESSAGE", MESSAGE)


def stage(name: str, kind: str, expressions: Sequence[Manifest], then: Manifest, delay_ms: int = 0) -> Manifest:
    """A kwok Stage: objects of `kind` that match all `expressions` get `then` after the delay."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": [*expressions]},
            "delay": {"durationMilliseconds": delay_ms},
            "next": then,
        },
    }


def base_stages() -> list[Manifest]:
    """What every use needs: nodes that become Ready, and deleted pods that go."""
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    not_ready = {"key": ready, "operator": "NotIn", "values": ["True"]}
    deleted = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
    return [
        stage("node-ready", "Node", [not_ready], {"statusTemplate": _NODE_READY}),
        stage("pod-delete", "Pod", [deleted], {"finalizers": {"empty": True}, "delete": True}),
    ]


def pod_stages(complete_after_ms: int = 500) -> list[Manifest]:
    """Pods run as soon as they are scheduled; those of Jobs end, with the code and message that annotations name."""
    pending = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}
    running = {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    of_job = {"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]}
    return [
        stage("pod-running", "Pod", [_NOT_DELETED, pending], {"statusTemplate": _POD_RUNNING}),
        stage("pod-ended", "Pod", [_NOT_DELETED, running, of_job], {"statusTemplate": _POD_ENDED}, complete_after_ms),
    ]


def start(processes: Processes, folder: Path, kubeconfig: Path, stages: Sequence[Manifest]) -> None:
    """Start kwok for the nodes that `make_node` creates, with `base_stages()` and these pod stages."""
    file = folder / "stages.yaml"
    file.write_text("".join(f"---\n{json.dumps(s, indent=1)}\n" for s in [*base_stages(), *stages]))
    processes.start(
        "kwok",
        [
            build.binary("kwok"),
            f"--kubeconfig={kubeconfig}",
            f"--config={file}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40",
            "--cidr=10.244.0.0/16",
            "--node-ip=10.244.255.1",
        ],
    )


def make_node(api: Api, name: str, gpus: int = 8, labels: dict[str, str] | None = None) -> None:
    """Make a fake node with that many GPUs and far more CPUs and memory than any test asks for."""
    capacity = {"cpu": "256", "memory": "2Ti", "ephemeral-storage": "10Ti", "pods": "1000", GPU: str(gpus)}
    prefix = "kubernetes.io"
    own = {f"{prefix}/hostname": name, f"{prefix}/os": "linux", f"{prefix}/arch": "amd64"}
    api.call(
        "POST",
        "/api/v1/nodes",
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {**own, **(labels or {})},
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            },
            "status": {"capacity": capacity, "allocatable": capacity},
        },
    )
