"""What to serve: the artifact of the followed job once it is promotable, or what is already served."""

from dataclasses import dataclass

from hone.api.finetunejob_status import ArtifactStatus, FineTuneJobStatus
from hone.api.modeldeployment import ModelDeploymentStatus, Revision
from hone.core.conditions import find, is_true
from hone.core.observed import Object


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact to serve, and the job that produced it."""

    job: str
    artifact: ArtifactStatus


@dataclass(frozen=True)
class Selection:
    """What to serve, and the state of the followed job.

    Attributes:
        served: what to serve; None: nothing yet.
        reason: `JobComplete` if the followed job's artifact is to be served, or why it is not.
        message: the same for people.
    """

    served: ServedArtifact | None
    reason: str
    message: str

    @property
    def artifact(self) -> ArtifactStatus | None:
        """The artifact to serve."""
        return self.served.artifact if self.served else None


COMPLETE = "JobComplete"
FINAL = ("JobFailed", "NotPromotable")
"""Reasons that do not resolve by waiting: the job has ended."""


def select(name: str, job: Object | None, status: ModelDeploymentStatus) -> Selection:
    """Choose what to serve.

    A job that is deleted, failed, or re-created and not complete changes nothing: the artifact that is served stays,
    rendered from our own status, and our owner reference keeps its claim.

    Args:
        name: name of the followed job.
        job: that job, or None where it does not exist.
        status: our own status.
    """
    served, reason, message = _of_job(name, job)
    if served:
        return Selection(served, reason, message)
    revision = status.candidate or status.stable
    if revision is None:
        return Selection(None, reason, message)
    return Selection(served_artifact(revision), reason, f"{message}; still serving {short(revision.digest)}")


def served_artifact(revision: Revision) -> ServedArtifact:
    """The artifact of a revision that was rolled out."""
    return ServedArtifact(revision.job, revision.artifact)


def short(digest: str) -> str:
    """A digest, cut for people."""
    return digest.removeprefix("sha256:")[:8]


def _of_job(name: str, job: Object | None) -> tuple[ServedArtifact | None, str, str]:
    if job is None or "deletionTimestamp" in job["metadata"]:
        return None, "JobNotFound", f"spec.model.jobRef.name: there is no FineTuneJob {name!r}"
    status = FineTuneJobStatus.from_dict(job.get("status") or {})
    if is_true(status.conditions, "Failed"):
        failed = find(status.conditions, "Failed")
        return None, "JobFailed", f"FineTuneJob {name!r} failed: {failed.message if failed else ''}"
    if not is_true(status.conditions, "Complete"):
        return None, "WaitingForJob", f"FineTuneJob {name!r} is {status.phase or 'Pending'}"
    promotable = find(status.conditions, "Promotable")
    if not is_true(status.conditions, "Promotable"):
        why = promotable.message if promotable else "it has no condition Promotable"
        return None, "NotPromotable", f"FineTuneJob {name!r} is not promotable: {why}"
    if status.artifact is None:
        return None, "WaitingForJob", f"FineTuneJob {name!r} reports no artifact"
    return ServedArtifact(name, status.artifact), COMPLETE, f"FineTuneJob {name!r} is complete"
