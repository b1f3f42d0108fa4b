"""Publish: one CPU pod that copies the artifact to a store, a hub or a registry; the only pod with its credentials.

It runs no code of the user's, mounts the artifact read-only and neither models nor the workspace. The run cannot fail
by it: where there is no copy, the condition Published says why. If the fields of `spec.output` that it reads are
edited, it runs again, also after the job has ended.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hone.api.finetunejob_status import FineTuneJobStatus, OutputStatus, Phase, PublishedStatus
from hone.contract.results import StepResult
from hone.contract.runconfig import Publication
from hone.contract.stores import S3_KEYS, S3_OPTIONAL_KEYS, S3Store
from hone.core import reported
from hone.core.downloads import TOKEN_KEY, SecretKey, is_trusted
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import PUBLISH, Run
from hone.core.finetunejob.steps.finish import OUTPUT_DIRECTORY
from hone.core.finetunejob.steps.step import Step, has_succeeded, no_mounts, removed_later
from hone.core.podspec import ClaimMount, Mount, resources
from hone.core.settings import Settings

KEYS = {
    "s3": {
        **{name: SecretKey("", name) for name in S3_KEYS},
        **{name: SecretKey("", name, optional=True) for name in S3_OPTIONAL_KEYS},
    },
    "hf": {TOKEN_KEY: SecretKey("", TOKEN_KEY)},
    "oci": {"DOCKER_AUTH_CONFIG": SecretKey("", ".dockerconfigjson")},
}
"""The variables of each kind of destination, and the keys of the Secret that they come from."""
BACKOFF_SECONDS = 30.0
START_HINT = (
    "check that the Secret of spec.output.credentialsSecretRef exists and has the keys; while a server on another node "
    "mounts the model, the pod starts only if spec.output.accessModes had ReadWriteMany; check also quota and image"
)


def publication(run: Run, status: FineTuneJobStatus) -> Publication | None:
    """The copy to make; None if there is none to make, or nothing to copy."""
    output, artifact = run.output, status.artifact
    if output.uri is None or artifact is None:
        return None
    endpoint = run.settings.hub_endpoint or None if output.uri.startswith("hf://") else None
    trusted = _is_trusted(output.uri, output.s3, run.settings) or None
    return Publication(uri=output.uri, digest=artifact.digest, endpoint=endpoint, s3=output.s3, is_trusted=trusted)


def _is_trusted(uri: str, store: S3Store | None, settings: Settings) -> bool:
    """Whether the administrator allows this destination whatever its address is."""
    scheme, _, place = uri.partition("://")
    if scheme == "hf":
        return bool(settings.hub_endpoint)
    return place.partition("/")[0] in settings.oci_registries if scheme == "oci" else is_trusted(store, settings)


def is_outdated(run: Run, status: FineTuneJobStatus) -> bool:
    """Whether the newest attempt was by other fields than those of the spec, which may be edited at any time."""
    return status.published_spec != run.publish_digest


def is_withdrawn(run: Run, status: FineTuneJobStatus) -> bool:
    """Whether the spec no longer asks for the copy that the newest attempt was to make."""
    return run.publish_digest is None and status.published_spec is not None


def _is_done(run: Run, status: FineTuneJobStatus) -> bool:
    if run.publish_digest is None:
        return True
    has_ended = has_succeeded(status, PUBLISH) or status.not_published is not None
    return has_ended and not is_outdated(run, status)


def _take_result(run: Run, status: Draft, results: Sequence[StepResult]) -> bool:
    result = results[0] if results else None
    if result is None or result.published is None:
        return False
    status.output = OutputStatus(published=PublishedStatus(**result.published.model_dump()))
    return True


def _leave_unpublished(status: Draft, why: str) -> bool:
    status.not_published = reported.text(why)
    return True


def _phase(has_attempt: bool, has_started: bool) -> Phase:
    return Phase.PUBLISHING


def _resources(run: Run) -> dict[str, Any]:
    return resources(None, {"cpu": "500m", "memory": "1Gi"}, memory_limit="8Gi")


def _mounts(run: Run) -> Sequence[Mount]:
    return (ClaimMount(run.output_claim, OUTPUT_DIRECTORY),)


def _secrets(run: Run) -> Mapping[str, SecretKey]:
    output = run.output
    if output.uri is None or output.credentials_secret_ref is None:
        return {}
    name = output.credentials_secret_ref.name
    keys = KEYS[output.uri.partition("://")[0]]
    return {variable: key._replace(secret=name) for variable, key in keys.items()}


PUBLISH_STEP = Step(
    name=PUBLISH,
    module="hone_trainer.publish",
    is_done=_is_done,
    take_result=_take_result,
    end_without=_leave_unpublished,
    phase=_phase,
    job_spec=removed_later,
    resources=_resources,
    mounts=_mounts,
    workspace=no_mounts,
    secrets=_secrets,
    digest=lambda run: run.publish_digest,
    backoff_seconds=BACKOFF_SECONDS,
    start_hint=START_HINT,
    reads_models=False,
)
