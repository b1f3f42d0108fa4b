"""The Jobs of the three steps: prepare and finish of one pod, train of a gang."""

from collections.abc import Mapping
from typing import Any

from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone.contract.runconfig import ATTEMPT_ENV, MASTER_ENV, METRICS_PORT, POD_UID_ENV, Attempt
from hone.core.children import metadata
from hone.core.finetunejob.resources.models import WORKSPACE_DIRECTORY, model_mounts
from hone.core.finetunejob.resources.rewards import reward_mounts
from hone.core.finetunejob.resources.runconfig import (
    CONFIG_DIRECTORY,
    CONFIG_FILE,
    OUTPUT_DIRECTORY,
    data_mounts,
)
from hone.core.finetunejob.run import Run, Step
from hone.core.names import SPEC_ANNOTATION
from hone.core.observed import Object
from hone.core.podspec import ClaimMount, ConfigMapMount, Mount, env, pod_template, resources

MODULES = {Step.PREPARE: "hone_trainer.prepare", Step.TRAIN: "hone_trainer.launch", Step.FINISH: "hone_trainer.finish"}
STEP_GRACE_SECONDS = 30
"""Grace of prepare and finish, which start over from what they cached."""

POD_FAILURE_POLICY = {
    "rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
    ]
}
"""Makes the Job's own message keep which pod ended how, after the pods are gone."""


def finish_gpus(run: Run) -> int:
    """GPUs of the finish pod: one is enough to score, and none on the CPU."""
    return min(1, run.compute.gpus_per_node)


def _mounts(run: Run, step: Step, config: str) -> list[Mount]:
    mounts: list[Mount] = [
        ConfigMapMount(config, CONFIG_FILE, CONFIG_DIRECTORY, CONFIG_FILE),
        *model_mounts(run, step),
        ClaimMount(run.workspace_claim, WORKSPACE_DIRECTORY, read_only=False),
    ]
    if step == Step.PREPARE:
        mounts += [*data_mounts(run), *reward_mounts(run)]
    if step == Step.FINISH:
        mounts.append(ClaimMount(run.output_claim, OUTPUT_DIRECTORY, read_only=False))
    return mounts


def _resources(run: Run, step: Step) -> dict[str, Any]:
    compute = run.compute
    if step == Step.PREPARE:
        return resources(run.prepare.resources, {"cpu": "500m", "memory": "2Gi"})
    gpus = finish_gpus(run) if step == Step.FINISH else compute.gpus_per_node
    # On GPUs: enough to feed each one, and to hold the weights once while they are loaded.
    ranks = 1 if step == Step.FINISH else run.processes_per_node
    cpu, memory = (4, 16) if compute.gpus_per_node else (1, 2)
    defaults = {"cpu": str(cpu * ranks), "memory": f"{memory * ranks}Gi"}
    return resources(compute.resources, defaults, gpus, compute.gpu_resource)


def _environment(run: Run, step: Step, attempt: Attempt) -> list[dict[str, Any]]:
    values = {ATTEMPT_ENV: attempt.model_dump_json(by_alias=True, exclude_defaults=True)}
    if step == Step.TRAIN and run.compute.nodes > 1:
        values[MASTER_ENV] = f"{run.job(step, attempt.number)}-0.{run.service}"
    settings = run.compute.pod
    made = env(values, (settings.env if settings else None) or [])
    made = [entry for entry in made if entry["name"] != POD_UID_ENV]
    made.append({"name": POD_UID_ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}})
    return made


def config_of(job: Object) -> str | None:
    """The ConfigMap with the RunConfig that a Job's pods mount."""
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    mounts = (mount for container in pod.get("containers") or [] for mount in container.get("volumeMounts") or [])
    volumes = {mount["name"] for mount in mounts if mount["mountPath"] == CONFIG_DIRECTORY}
    found = (volume["configMap"]["name"] for volume in pod.get("volumes") or [] if volume["name"] in volumes)
    return next(found, None)


def job(run: Run, step: Step, attempt: Attempt, config: str) -> Object:
    """The Job of one attempt at a step.

    Args:
        run: the run.
        step: the step.
        attempt: what its pods are told of it.
        config: name of the ConfigMap with the RunConfig.
    """
    pods = run.compute.nodes if step == Step.TRAIN else 1
    container: Object = {
        "name": str(step),
        "image": run.image,
        "command": ["python", "-m", MODULES[step]],
        "env": _environment(run, step, attempt),
        "resources": _resources(run, step),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if run.settings.image_pull_policy:
        container["imagePullPolicy"] = run.settings.image_pull_policy
    if step == Step.TRAIN:
        container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    pod_spec: Mapping[str, Any] = {"restartPolicy": "Never"}
    if step == Step.TRAIN and pods > 1:
        pod_spec = {**pod_spec, "subdomain": run.service}
    meta = metadata(run.resource, run.job(step, attempt.number), step)
    meta["annotations"][SPEC_ANNOTATION] = run.spec_digest
    spec: Object = {
        "completions": pods,
        "parallelism": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": POD_FAILURE_POLICY,
        "template": pod_template(
            run.resource,
            step,
            container,
            _mounts(run, step, config),
            run.compute.pod,
            run.checkpoint.grace_period_seconds if step == Step.TRAIN else STEP_GRACE_SECONDS,
            **pod_spec,
        ),
    }
    if step == Step.TRAIN and run.spec.active_deadline_seconds:
        spec["activeDeadlineSeconds"] = run.spec.active_deadline_seconds
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
