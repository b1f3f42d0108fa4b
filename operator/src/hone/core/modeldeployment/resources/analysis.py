"""The Job that asks both revisions the same prompts. It has no credentials but a key of the servers."""

from hone.api.modeldeployment import Role
from hone.contract.analysis import ANALYSIS_ENV, Analysis
from hone.contract.exits import FailureClass, exit_code
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone.core.children import metadata
from hone.core.modeldeployment.analysis import job_ref, settings
from hone.core.modeldeployment.resources import access, vllm
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import ANALYZE, Server
from hone.core.observed import Object
from hone.core.podspec import ClaimMount, ConfigMapMount, Mount, SecretMount, env, pod_template, resources

MODULE = "hone_trainer.analyze"
DIRECTORY, STABLE_KEYS = "/mnt/rows", "/mnt/stable-keys"
ATTEMPTS = 3
AGAIN_SECONDS = 600
"""When Kubernetes removes the Job after its end. If it failed, the next one is created then."""
LONGEST_SECONDS = 3600
GRACE_SECONDS = 5


def analysis(server: Server, served: ServedArtifact, key: str, stable: Object) -> Object:
    """The Job of an analysis.

    Args:
        server: the ModelDeployment.
        served: what the candidate serves.
        key: the analysis' key.
        stable: the Deployment of the revision that is served, whose clients may have other keys.
    """
    code = exit_code(FailureClass.BAD_INPUT)
    mounts, rows = _rows(server)
    keys = _keys(server, stable)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(server.resource, job_ref(server, key).name, ANALYZE),
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "completionMode": "Indexed",
            "backoffLimit": ATTEMPTS,
            "activeDeadlineSeconds": LONGEST_SECONDS,
            "ttlSecondsAfterFinished": AGAIN_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [code]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": pod_template(
                server.resource,
                ANALYZE,
                _container(server, served, rows, keys),
                [*mounts, *dict.fromkeys(mount for mount in keys.values() if mount)],
                server.spec.pod,
                GRACE_SECONDS,
                shm_size="64Mi",
                restartPolicy="Never",
            ),
        },
    }


def _keys(server: Server, stable: Object) -> dict[Role, SecretMount | None]:
    """Where the keys of each role are mounted."""
    new, old = access.secret_name(server), access.secret_of(stable)
    candidate = SecretMount(new, access.KEYS_DIRECTORY) if new else None
    other = SecretMount(old, STABLE_KEYS) if old else None
    return {Role.STABLE: candidate if old == new else other, Role.CANDIDATE: candidate}


def _container(server: Server, served: ServedArtifact, rows: str, keys: dict[Role, SecretMount | None]) -> Object:
    policy = server.settings.image_pull_policy
    return {
        "name": ANALYZE,
        "image": server.settings.trainer_image,
        "command": ["python", "-m", MODULE],
        "env": env({ANALYSIS_ENV: _config(server, served, rows, keys).to_json()}),
        "resources": resources(None, {"cpu": "500m", "memory": "1Gi"}, memory_limit="4Gi"),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"imagePullPolicy": policy} if policy else {}),
    }


def _config(server: Server, served: ServedArtifact, rows: str, keys: dict[Role, SecretMount | None]) -> Analysis:
    spec = settings(server)
    assert spec is not None  # Only then is there a Job.
    old, new = (mount.path if mount else None for mount in (keys[Role.STABLE], keys[Role.CANDIDATE]))
    stable, candidate = (
        f"http://{server.service_of(role).name}.{server.namespace}.svc" for role in (Role.STABLE, Role.CANDIDATE)
    )
    return Analysis(
        stable=stable,
        candidate=candidate,
        model=server.served_name,
        api=vllm.api_of(served),
        rows=rows,
        max_samples=spec.max_samples,
        max_tokens=spec.max_new_tokens,
        metric=spec.metric,
        tolerance=spec.tolerance,
        latency_tolerance=spec.latency_tolerance,
        confidence=spec.confidence,
        keys=new,
        stable_keys=old,
    )


def _rows(server: Server) -> tuple[list[Mount], str]:
    """The mount of the rows, and their path."""
    spec = settings(server)
    assert spec is not None
    if claim := spec.dataset.claim:
        return [ClaimMount(claim.name, DIRECTORY)], f"{DIRECTORY}/{claim.path}"
    named = spec.dataset.config_map
    assert named is not None  # A rule says so.
    return [ConfigMapMount(named.name, named.key, DIRECTORY, named.key)], f"{DIRECTORY}/{named.key}"
