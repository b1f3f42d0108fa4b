"""The Deployment of a served artifact, and the digests that decide whether it is rendered again."""

import json

from hone.api import modeldeployment
from hone.api.modeldeployment import Role
from hone.api.rollout import Strategy
from hone.api.served_model import ServedModel
from hone.contract.report import ARTIFACT_DIR
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone.core import names
from hone.core.children import metadata
from hone.core.modeldeployment.resources import access, fetching, memory, vllm
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import BYTES_PER_SECOND, FETCH, HTTP_PORT, STEP, VERIFY, Server
from hone.core.observed import Object
from hone.core.plan import Apply
from hone.core.podspec import ClaimMount, InitContainer, Mount, env, pod_template, resources
from hone.core.vllm import COMMAND

SCALE_MANAGER = "hone-scale"
VERIFY_MODULE = "hone_trainer.verify"
END_SECONDS = 10
"""Time to exit after the last answer."""
PROBE_PERIOD_SECONDS = 5
SPREAD_KEYS = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
SPARE_BYTES = 64 << 20
SLOW_BYTES_PER_SECOND = 2_000_000
"""How slow the connection to a store may be."""
PROGRESS_MARGIN_SECONDS = 300
"""How long scheduling and pulling the image may take before the Deployment counts as stuck."""


NOT_RENDERED = ("replicas", "rollout", "revisionHistoryLimit")
"""Fields of the spec that no pod depends on."""


def inputs(server: Server, served: ServedArtifact) -> str:
    """Digest of the inputs of the Deployment: spec and artifact, but neither replicas, rollout nor our own code.

    Therefore neither an autoscaler nor an upgrade of the operator restarts a server, unless `access.VERSION` is raised.
    """
    spec = {key: value for key, value in server.resource["spec"].items() if key not in NOT_RENDERED}
    artifact = served.artifact
    identity: list[object] = [artifact.digest, artifact.claim, artifact.model_claim, artifact.model_path, served.job]
    if served.model:
        identity.append(served.model.to_dict())
    return names.digest(json.dumps([spec, identity, access.VERSION], sort_keys=True), length=16)


def _resources(server: Server, served: ServedArtifact, gpus: int) -> Object:
    default_cpu, default_memory = (4 * server.spec.gpus, 16 * server.spec.gpus) if server.spec.gpus else (1, 3)
    defaults = {"cpu": str(default_cpu), "memory": f"{default_memory}Gi"}
    return resources(server.spec.resources, defaults, gpus, server.spec.gpu_resource, memory.limit(server, served))


def _pull_policy(server: Server) -> Object:
    policy = server.settings.image_pull_policy
    return {"imagePullPolicy": policy} if policy else {}


def _before(server: Server, served: ServedArtifact) -> InitContainer:
    """What has to succeed before the server starts."""
    return _fetch(server, served, served.model) if served.model else _verify(server, served)


def _fetch(server: Server, served: ServedArtifact, model: ServedModel) -> InitContainer:
    """The init container that downloads a published model, or finds it mounted, and compares it with its digest.

    The scheduler chooses a node with space for it.
    """
    needs, own = fetching.fetching(server, model, served.artifact.base_digest), _resources(server, served, gpus=0)
    space = _downloaded_bytes(served, model)
    requests = {**own.get("requests", {}), **({"ephemeral-storage": str(space)} if space else {})}
    container = fetching.container(server, FETCH, FETCH, needs, {**own, "requests": requests} if requests else own)
    return InitContainer(container, needs.mounts)


def _downloaded_bytes(served: ServedArtifact, model: ServedModel) -> int:
    """Bytes that a pod downloads, and a little more."""
    artifact, base = served.artifact, model.base and model.base.uri
    sizes = (artifact.size_bytes if model.uri else 0) + (artifact.weights_bytes if base else 0)
    return round(1.05 * sizes) + SPARE_BYTES if sizes else 0


def _verify(server: Server, served: ServedArtifact) -> InitContainer:
    """The init container that compares the artifact's files with their digest. The server starts only if they agree.

    Its resources are the server's: a pod needs the larger of both, so it needs no more than without it. It mounts the
    whole claim, because the report next to the artifact names the files. Of an adapter, it compares the base as well;
    jobs of older releases have no digest of it.
    """
    artifact, base = served.artifact, vllm.base_directory(served)
    mounts, of_base = [ClaimMount(artifact.claim or "", vllm.CLAIM_DIRECTORY)], []
    if base and artifact.model_claim and artifact.base_digest:
        mounts.append(ClaimMount(artifact.model_claim, vllm.MODEL_DIRECTORY))
        of_base = ["--base", base, "--base-digest", artifact.base_digest]
    container: Object = {
        "name": VERIFY,
        "image": server.settings.trainer_image,
        "command": ["python", "-m", VERIFY_MODULE],
        "args": [vllm.SERVED_DIRECTORY, artifact.digest, *of_base],
        "resources": _resources(server, served, gpus=0),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_pull_policy(server),
    }
    return InitContainer(container, mounts)


def _container(server: Server, served: ServedArtifact) -> Object:
    probe: Object = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    startup = server.startup_seconds(served.artifact.weights_bytes)
    return {
        "name": "server",
        "image": server.image,
        "command": list(COMMAND),
        "args": [*vllm.arguments(server, served), *access.arguments()],
        "env": env(
            {**vllm.environment(server), **access.environment(server, served)},
            [*((server.spec.pod.env if server.spec.pod else None) or []), *(server.runtime.env or [])],
            user_wins=True,
        ),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": access.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(server, served, server.spec.gpus),
        "startupProbe": {
            **probe,
            "periodSeconds": PROBE_PERIOD_SECONDS,
            "failureThreshold": -(-startup // PROBE_PERIOD_SECONDS),
        },
        # Not ready without keys, or a rollout with a misspelled Secret would replace servers that answer.
        "readinessProbe": {
            **probe,
            "httpGet": access.READY,
            "periodSeconds": PROBE_PERIOD_SECONDS,
            "failureThreshold": 3,
        },
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"httpGet": access.DRAIN}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_pull_policy(server),
    }


def _revision(template: Object, served: ServedArtifact) -> str:
    """Hash of artifact, base and pod template, without the label that names the ModelDeployment, which never changes.

    Therefore revisions in a status that was written before pods had that label stay valid. The role and its selector
    are no part of it either: a revision keeps its name when its role changes.
    """
    meta, own = template["metadata"], names.RESOURCE_LABELS[modeldeployment.KIND]
    labels = {key: value for key, value in meta["labels"].items() if key != own}
    hashed = {**template, "metadata": {**meta, "labels": labels}}
    artifact = served.artifact
    return names.digest(json.dumps([hashed, artifact.digest, artifact.base_digest], sort_keys=True), length=10)


def deployment(server: Server, served: ServedArtifact, role: Role) -> Object:
    """The Deployment. Without replicas if the spec has none, so that an autoscaler may own them."""
    template = pod_template(
        server.resource,
        STEP,
        _container(server, served),
        _mounts(server, served),
        server.spec.pod,
        access.DRAIN_SECONDS + server.spec.drain_seconds + END_SECONDS,
        init=_before(server, served),
        shm_size=memory.shm_size(server),
        topologySpreadConstraints=_spread(server),
    )
    own = {names.REVISION_LABEL: _revision(template, served), names.ROLE_LABEL: str(role)}
    template["metadata"]["labels"] |= {**server.selector(role), **own}
    meta = metadata(server.resource, server.deployment(role).name, STEP)
    meta["labels"][names.ROLE_LABEL] = str(role)
    meta["annotations"][names.INPUTS_ANNOTATION] = inputs(server, served)
    replicas = {} if server.spec.replicas is None else {"replicas": server.spec.replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            **replicas,
            "selector": {"matchLabels": server.selector(role)},
            "strategy": strategy(server),
            "progressDeadlineSeconds": _progress_seconds(server, served),
            "revisionHistoryLimit": 2,
            "template": template,
        },
    }


def strategy(server: Server) -> Object:
    """How the Deployment replaces its pods. Null removes what another strategy had: the API server refuses both."""
    if server.strategy == Strategy.RECREATE:
        return {"type": "Recreate", "rollingUpdate": None}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def _spread(server: Server) -> list[Object]:
    """Pods of a revision on as many nodes and zones as there are, unless they would have no place then.

    The same for all roles: a revision keeps its name when its role changes.
    """
    shared = {
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {names.UID_LABEL: server.uid}},
        "matchLabelKeys": ["pod-template-hash"],
    }
    return [{"topologyKey": key, **shared} for key in SPREAD_KEYS]


def _mounts(server: Server, served: ServedArtifact) -> list[Mount]:
    """What the server itself mounts, all of it read-only."""
    artifact = served.artifact
    guard = access.mounts(server)
    if served.model:
        return [*fetching.fetching(server, served.model, None, read_only=True).mounts, *guard]
    mounts: list[Mount] = [*guard, ClaimMount(artifact.claim or "", vllm.SERVED_DIRECTORY, sub_path=ARTIFACT_DIR)]
    if vllm.is_adapter(served) and artifact.model_claim:
        mounts.append(ClaimMount(artifact.model_claim, vllm.MODEL_DIRECTORY))
    return mounts


def _progress_seconds(server: Server, served: ServedArtifact) -> int:
    """How long a rollout may take: artifact and base are read once to verify them and once to load them."""
    artifact = served.artifact
    if served.model and (space := _downloaded_bytes(served, served.model)):
        verify = space // SLOW_BYTES_PER_SECOND
        return verify + server.startup_seconds(artifact.weights_bytes) + PROGRESS_MARGIN_SECONDS
    verify = max(artifact.size_bytes, artifact.weights_bytes) // BYTES_PER_SECOND
    return verify + server.startup_seconds(artifact.weights_bytes) + PROGRESS_MARGIN_SECONDS


def revision_of(rendered: Object) -> str:
    """The revision that a Deployment's pods run."""
    return str(rendered["spec"]["template"]["metadata"]["labels"].get(names.REVISION_LABEL, ""))


def is_rendered_from(live: Object, digest: str) -> bool:
    """Whether the live Deployment was rendered from these inputs."""
    return bool((live["metadata"].get("annotations") or {}).get(names.INPUTS_ANNOTATION) == digest)


def scale(server: Server, live: Object, role: Role, replicas: int | None) -> Apply | None:
    """The apply that sets only the number of pods; None if it is right, or not ours to set (`replicas` is None)."""
    if replicas is None or live["spec"].get("replicas", 1) == replicas:
        return None
    ref = server.deployment(role)
    meta = {"name": ref.name, "namespace": server.namespace, "uid": live["metadata"]["uid"]}
    body = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": meta, "spec": {"replicas": replicas}}
    return Apply(body, SCALE_MANAGER)
