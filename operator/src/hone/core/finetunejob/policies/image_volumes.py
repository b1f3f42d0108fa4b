"""Image volumes that a cluster cannot mount: what the status says of a pod without them, and what to do."""

from hone.api.finetunejob_status import Failure
from hone.contract.exits import FailureClass
from hone.core.finetunejob.policies import failure as failures
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources import sources
from hone.core.finetunejob.sources.source import Source
from hone.core.finetunejob.steps.step import Step
from hone.core.observed import Object
from hone.core.plan import Plan
from hone.core.pods import IMAGE_VOLUMES_NEED as NEEDS
from hone.core.pods import NOT_CREATED, Trouble, may_lack_image_volumes


def mounted(run: Run, step: Step) -> list[Source]:
    """The sources in images that the pods of a step mount."""
    if not step.reads_models:
        return []
    return [each for each in sources(run) if each.image and (step.reads_originals or not each.prepare_only)]


def explained(run: Run, step: Step, trouble: Trouble) -> Trouble:
    """What keeps a pod from starting, with field and remedy if that can be an image volume."""
    images = [source.image for source in mounted(run, step) if source.image]
    for image in images:
        # Also of a registry that does not answer. The image of the container has another digest, or none.
        if trouble.reason not in NOT_CREATED and image.reference.partition("@")[2] in trouble.message:
            remedy = "check its name and digest, and spec.compute.pod.imagePullSecrets"
            return Trouble(trouble.reason, f"{image.field}: {trouble.message}; {remedy}")
    if images and may_lack_image_volumes(trouble):
        return Trouble(trouble.reason, f"{trouble.message}; {images[0].field} is an image volume: {NEEDS}")
    return trouble


def no_reason(run: Run, step: Step) -> str:
    """Why pods have not started of which the kubelet reports nothing: it waits for a volume that it cannot mount."""
    known = "the kubelet reports no reason"
    return f"{known}; {NEEDS}" if mounted(run, step) else known


def dropped(run: Run, step: Step, job: Object | None) -> Failure | None:
    """The failure of an attempt whose Job has lost an image volume, or None.

    An API server whose feature gate is off removes such volumes with their mounts, and accepts the rest.
    """
    containers = (job or {}).get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    paths = {mount["mountPath"] for container in containers for mount in container.get("volumeMounts") or []}
    lost = [each.image for each in mounted(run, step) if each.image and not paths & {m.path for m in each.mounts}]
    if not containers or not lost:
        return None
    message = f"{lost[0].field}: the API server has removed this volume from the pods, because it has no image volumes"
    return failures.make(FailureClass.NEVER_STARTED, message, hint=NEEDS)


def refusal(plan: Plan, message: str) -> str:
    """The API server's answer to a Plan that it refused, with the remedy if it may be because of an image volume."""
    pods = [body.get("spec", {}).get("template", {}).get("spec", {}) for body in plan.create]
    has_images = any("image" in volume for pod in pods for volume in pod.get("volumes") or [])
    return f"{message}; {NEEDS}" if has_images and "volume" in message else message
