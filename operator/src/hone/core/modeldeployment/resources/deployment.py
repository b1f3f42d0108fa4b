"""The Deployment of a served artifact, and the digests that decide whether it is rendered again."""

import json

from hone.api import modeldeployment
from hone.core import names
from hone.core.children import metadata
from hone.core.modeldeployment.resources import vllm
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import HTTP_PORT, STEP, Role, Server
from hone.core.observed import Object
from hone.core.plan import Apply
from hone.core.podspec import ClaimMount, Mount, env, pod_template, resources

SCALE_MANAGER = "hone-scale"
PRE_STOP_SECONDS = 5
"""Time for the endpoint's removal to reach every proxy before the server stops accepting connections."""
END_SECONDS = 10
"""Time to exit after the last answer."""
PROBE_PERIOD_SECONDS = 5
PROGRESS_MARGIN_SECONDS = 300
"""How long scheduling and pulling the image may take before the Deployment counts as stuck."""


def inputs(server: Server, served: ServedArtifact) -> str:
    """Digest of the inputs of the Deployment: spec and artifact, but neither replicas nor our own code.

    Therefore neither an autoscaler nor an upgrade of the operator restarts a server.
    """
    spec = {key: value for key, value in server.resource["spec"].items() if key != "replicas"}
    artifact = served.artifact
    identity = [artifact.digest, artifact.claim, artifact.model_claim, artifact.model_path, served.job]
    return names.digest(json.dumps([spec, identity], sort_keys=True), length=16)


def _container(server: Server, served: ServedArtifact) -> Object:
    probe: Object = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    startup = server.startup_seconds(served.artifact.weights_bytes)
    default_cpu, default_memory = (4 * server.spec.gpus, 16 * server.spec.gpus) if server.spec.gpus else (1, 3)
    container: Object = {
        "name": "server",
        "image": server.image,
        "command": list(vllm.COMMAND),
        "args": vllm.arguments(server, served),
        "env": env(
            vllm.environment(server),
            [*((server.spec.pod.env if server.spec.pod else None) or []), *(server.runtime.env or [])],
            user_wins=True,
        ),
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "resources": resources(
            server.spec.resources,
            {"cpu": str(default_cpu), "memory": f"{default_memory}Gi"},
            server.spec.gpus,
            server.spec.gpu_resource,
        ),
        "startupProbe": {
            **probe,
            "periodSeconds": PROBE_PERIOD_SECONDS,
            "failureThreshold": -(-startup // PROBE_PERIOD_SECONDS),
        },
        "readinessProbe": {**probe, "periodSeconds": PROBE_PERIOD_SECONDS, "failureThreshold": 3},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if server.settings.image_pull_policy:
        container["imagePullPolicy"] = server.settings.image_pull_policy
    return container


def _revision(template: Object, served: ServedArtifact) -> str:
    """Hash of artifact, base and pod template, without the label that names the ModelDeployment, which never changes.

    Therefore revisions in a status that was written before pods had that label stay valid.
    """
    meta, own = template["metadata"], names.RESOURCE_LABELS[modeldeployment.KIND]
    labels = {key: value for key, value in meta["labels"].items() if key != own}
    hashed = {**template, "metadata": {**meta, "labels": labels}}
    artifact = served.artifact
    return names.digest(json.dumps([hashed, artifact.digest, artifact.base_digest], sort_keys=True), length=10)


def deployment(server: Server, served: ServedArtifact, role: Role) -> Object:
    """The Deployment. Without replicas if the spec has none, so that an autoscaler may own them."""
    artifact = served.artifact
    mounts: list[Mount] = [ClaimMount(artifact.claim, vllm.ARTIFACT_DIRECTORY)]
    if vllm.is_adapter(served) and artifact.model_claim:
        mounts.append(ClaimMount(artifact.model_claim, vllm.MODEL_DIRECTORY))
    template = pod_template(
        server.resource,
        STEP,
        _container(server, served),
        mounts,
        server.spec.pod,
        PRE_STOP_SECONDS + server.spec.drain_seconds + END_SECONDS,
    )
    template["metadata"]["labels"][names.REVISION_LABEL] = _revision(template, served)
    meta = metadata(server.resource, server.deployment(role).name, STEP)
    meta["annotations"][names.INPUTS_ANNOTATION] = inputs(server, served)
    replicas = {} if server.spec.replicas is None else {"replicas": server.spec.replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            **replicas,
            "selector": {"matchLabels": server.selector(role)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": server.startup_seconds(artifact.weights_bytes) + PROGRESS_MARGIN_SECONDS,
            "revisionHistoryLimit": 2,
            "template": template,
        },
    }


def revision_of(rendered: Object) -> str:
    """The revision that a Deployment's pods run."""
    return str(rendered["spec"]["template"]["metadata"]["labels"].get(names.REVISION_LABEL, ""))


def is_rendered_from(live: Object, digest: str) -> bool:
    """Whether the live Deployment was rendered from these inputs."""
    return bool((live["metadata"].get("annotations") or {}).get(names.INPUTS_ANNOTATION) == digest)


def scale(server: Server, live: Object, role: Role) -> Apply | None:
    """The apply that sets only the number of pods; None if it is right, or not ours to set."""
    replicas = server.spec.replicas
    if replicas is None or live["spec"].get("replicas", 1) == replicas:
        return None
    ref = server.deployment(role)
    meta = {"name": ref.name, "namespace": server.namespace, "uid": live["metadata"]["uid"]}
    body = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": meta, "spec": {"replicas": replicas}}
    return Apply(body, SCALE_MANAGER)
