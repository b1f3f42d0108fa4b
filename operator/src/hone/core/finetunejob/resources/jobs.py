"""The Job of an attempt: one pod, or a gang; all differences between the steps are in the steps themselves."""

from typing import Any

from hone.api.finetunejob import StepEnvVar
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone.contract.runconfig import ATTEMPT_ENV, POD_UID_ENV, Attempt
from hone.core.children import metadata
from hone.core.finetunejob.resources import queue
from hone.core.finetunejob.resources.runconfig import CONFIG_DIRECTORY, CONFIG_FILE
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources import sources
from hone.core.finetunejob.sources.models import model_sources
from hone.core.finetunejob.sources.source import Source
from hone.core.finetunejob.steps.step import Step
from hone.core.names import SPEC_ANNOTATION
from hone.core.observed import Object
from hone.core.podspec import ConfigMapMount, InitContainer, Mount, env, pod_template

POD_FAILURE_POLICY = {
    "rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
    ]
}
"""With it, the Job's own message records which pod failed and how, even after the pods are deleted."""


def _reads(step: Step, source: Source) -> bool:
    return step.reads_models and (step.reads_originals or not source.prepare_only)


def _mounts(run: Run, step: Step, config: str) -> list[Mount]:
    models = [source for source in model_sources(run).values() if _reads(step, source)]
    return [
        ConfigMapMount(config, CONFIG_FILE, CONFIG_DIRECTORY, CONFIG_FILE),
        *(mount for source in models for mount in source.mounts),
        *step.workspace(run),
        *step.mounts(run),
    ]


def _reaches(run: Run, step: Step, entry: StepEnvVar) -> bool:
    """Whether the pods of a step get a variable of the user's.

    prepare and finish read models and data that others fill: what they do not need, no such file can get hold of.
    """
    if entry.steps is not None:
        return step.name in [name.lower() for name in entry.steps]
    return entry.value_from is None or step.runs_users_code(run)


def _environment(run: Run, step: Step, attempt: Attempt) -> list[dict[str, Any]]:
    ours = {
        **{name: value for source in sources(run) if _reads(step, source) for name, value in source.env.items()},
        ATTEMPT_ENV: attempt.model_dump_json(by_alias=True, exclude_defaults=True),
        **step.env(run, run.job(step.name, attempt.number)),
    }
    settings = run.compute.pod
    users = [entry for entry in (settings.env if settings else None) or [] if _reaches(run, step, entry)]
    variables = env(ours, users)
    reserved = {POD_UID_ENV, *(name for source in sources(run) for name in source.secrets), *step.secrets(run)}
    variables = [entry for entry in variables if entry["name"] not in reserved]
    variables += _secrets(run, step)
    variables.append({"name": POD_UID_ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}})
    return variables


def _secrets(run: Run, step: Step) -> list[dict[str, Any]]:
    """Credentials of sources, of prepare alone; and those of the step itself."""
    read = sources(run) if step.reads_originals else []
    secrets = {**{name: key for source in read for name, key in source.secrets.items()}, **step.secrets(run)}
    return [key.variable(name) for name, key in secrets.items()]


def _container(run: Run, step: Step, attempt: Attempt) -> Object:
    container: Object = {
        "name": step.name,
        "image": run.image,
        "command": ["python", "-m", step.module],
        "env": _environment(run, step, attempt),
        "resources": step.resources(run),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if run.settings.image_pull_policy:
        container["imagePullPolicy"] = run.settings.image_pull_policy
    if step.ports:
        container["ports"] = [dict(port) for port in step.ports]
    return container


def _before(run: Run, step: Step, attempt: Attempt, mounts: list[Mount]) -> InitContainer | None:
    """The container that does first what must not be lost; its resources are the pod's, so that it waits for nothing.
    Of a step without one, its sidecar.

    A trainer image of a release that does not know `export_only` does all of the step in it.
    """
    if step.part is None:
        return step.sidecar(run)
    container = _container(run, step, attempt.model_copy(update={"export_only": True}))
    return InitContainer({**container, "name": step.part}, mounts)


def config_of(job: Object) -> str | None:
    """The ConfigMap with the RunConfig that a Job's pods mount."""
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    mounts = (mount for container in pod.get("containers") or [] for mount in container.get("volumeMounts") or [])
    volumes = {mount["name"] for mount in mounts if mount["mountPath"] == CONFIG_DIRECTORY}
    names = (volume["configMap"]["name"] for volume in pod.get("volumes") or [] if volume["name"] in volumes)
    return next(names, None)


def job(run: Run, step: Step, attempt: Attempt, config: str) -> Object:
    """The Job of one attempt at a step.

    Args:
        run: the run.
        step: the step.
        attempt: what its pods do differently from those of another attempt.
        config: name of the ConfigMap with the RunConfig.
    """
    pods, mounts = step.pods(run), _mounts(run, step, config)
    meta = metadata(run.resource, run.job(step.name, attempt.number), step.name)
    meta["annotations"][SPEC_ANNOTATION] = step.digest(run)
    queued = queue.labels(run) if step.joins_queue else {}
    meta["labels"] |= queued
    spec: Object = {
        "completions": pods,
        "parallelism": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": POD_FAILURE_POLICY,
        "template": pod_template(
            run.resource,
            step.name,
            _container(run, step, attempt),
            mounts,
            run.compute.pod,
            step.grace_seconds(run),
            init=_before(run, step, attempt, mounts),
            shm_size=step.shm_size(run),
            restartPolicy="Never",
            **step.pod_spec(run),
        ),
        **step.job_spec(run),
        **({"suspend": True} if queued else {}),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
