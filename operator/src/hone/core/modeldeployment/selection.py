"""What to serve: the artifact of the followed job once it is promotable, or what is already served."""

from dataclasses import dataclass, replace

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.api.modeldeployment import ModelDeploymentStatus, Revision, ServedArtifactStatus
from hone.api.served_model import ServedModel
from hone.core.conditions import find, is_true
from hone.core.observed import Object


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact to serve: of a job, or published.

    Attributes:
        job: the job that produced it, if it is on that job's claim.
        artifact: what it is.
        model: where it was published, with the commit to use.
    """

    job: str | None
    artifact: ServedArtifactStatus
    model: ServedModel | None = None


@dataclass(frozen=True)
class Selection:
    """What to serve, and the state of what the spec names.

    Attributes:
        served: what to serve; None: nothing yet.
        reason: `JobComplete` or `ModelResolved` if it is what the spec names, or why it is not.
        message: the same for people.
        is_current: whether it is what the spec names.
        is_final: whether waiting does not help.
    """

    served: ServedArtifact | None
    reason: str
    message: str
    is_current: bool = False
    is_final: bool = False

    @property
    def artifact(self) -> ServedArtifactStatus | None:
        """The artifact to serve."""
        return self.served.artifact if self.served else None


def select(name: str, job: Object | None, status: ModelDeploymentStatus) -> Selection:
    """Choose what to serve of a job.

    A job that is deleted, failed, or re-created and not complete changes nothing: the artifact that is served stays,
    rendered from our own status, and our owner reference keeps its claim.

    Args:
        name: name of the followed job.
        job: that job, or None where it does not exist.
        status: our own status.
    """
    return or_served(_of_job(name, job), status)


def or_served(selection: Selection, status: ModelDeploymentStatus) -> Selection:
    """The selection, or what is already served where it selects nothing."""
    revision = status.candidate or status.stable
    if selection.served or revision is None:
        return selection
    message = f"{selection.message}; still serving {short(revision.digest)}"
    return replace(selection, served=served_artifact(revision), message=message)


def served_artifact(revision: Revision) -> ServedArtifact:
    """The artifact of a revision that was rolled out."""
    return ServedArtifact(revision.job, revision.artifact, revision.model)


def short(digest: str) -> str:
    """A digest, cut for people."""
    return digest.removeprefix("sha256:")[:8]


def _of_job(name: str, job: Object | None) -> Selection:
    if job is None or "deletionTimestamp" in job["metadata"]:
        return Selection(None, "JobNotFound", f"spec.model.jobRef.name: there is no FineTuneJob {name!r}")
    status = FineTuneJobStatus.from_dict(job.get("status") or {})
    if is_true(status.conditions, "Failed"):
        failed = find(status.conditions, "Failed")
        message = f"FineTuneJob {name!r} failed: {failed.message if failed else ''}"
        return Selection(None, "JobFailed", message, is_final=True)
    if not is_true(status.conditions, "Complete"):
        return Selection(None, "WaitingForJob", f"FineTuneJob {name!r} is {status.phase or 'Pending'}")
    promotable = find(status.conditions, "Promotable")
    if not is_true(status.conditions, "Promotable"):
        why = promotable.message if promotable else "it has no condition Promotable"
        return Selection(None, "NotPromotable", f"FineTuneJob {name!r} is not promotable: {why}", is_final=True)
    if status.artifact is None:
        return Selection(None, "WaitingForJob", f"FineTuneJob {name!r} reports no artifact")
    served = ServedArtifact(name, ServedArtifactStatus(**status.artifact.model_dump()))
    return Selection(served, "JobComplete", f"FineTuneJob {name!r} is complete", is_current=True)
