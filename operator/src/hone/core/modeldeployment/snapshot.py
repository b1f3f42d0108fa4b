"""What one look at a ModelDeployment works out, from which its Plan and its status are made."""

from dataclasses import dataclass

from hone.api.modeldeployment import ModelDeploymentStatus, Revision
from hone.core.children import Standing, standing
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.resources.deployment import deployment, inputs, is_rendered_from, revision_of
from hone.core.modeldeployment.selection import Release, Selection, release_of, select, short
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, is_usable
from hone.core.pods import Trouble


@dataclass(frozen=True)
class Look:
    """What is there, what is wanted, and what stands between.

    Attributes:
        server: the resource.
        old: its status as it was read.
        selection: what to serve, and where the followed job stands.
        live: our Deployment, or None.
        rendered: the Deployment to apply, or None where the live one is as it should be.
        revision: the wanted revision; None where nothing is to be served.
        blocked: why what is wanted cannot be rolled out at all.
        trouble: what keeps the rollout from going on.
        complete: whether the wanted revision is rolled out.
    """

    server: Server
    old: ModelDeploymentStatus
    selection: Selection
    live: Object | None
    rendered: Object | None
    revision: str | None
    blocked: Trouble | None
    trouble: Trouble | None
    complete: bool

    @property
    def release(self) -> Release | None:
        """What is to be served."""
        return self.selection.release

    @property
    def wanted(self) -> Revision | None:
        """The wanted revision, as status shows it."""
        if self.release is None or self.revision is None:
            return None
        digest = self.release.artifact.digest
        return Revision(revision=self.revision, digest=digest, job=self.release.job, artifact=self.release.artifact)

    @property
    def stable(self) -> Revision | None:
        """What has been rolled out."""
        return self.wanted if self.complete else self.old.stable

    @property
    def candidate(self) -> Revision | None:
        """What is being rolled out."""
        same = self.old.stable is not None and self.old.stable.revision == self.revision
        return None if self.complete or same else self.wanted

    @property
    def available(self) -> int:
        """Pods that answer."""
        return rollout.available(self.live)


def job_ref(server: Server) -> Ref:
    """The followed job."""
    return Ref(str(server.resource["apiVersion"]), "FineTuneJob", server.job)


def claims(status: ModelDeploymentStatus) -> set[str]:
    """The claims whose artifacts are served or rolled out."""
    return {revision.artifact.claim for revision in (status.stable, status.candidate) if revision}


def child(server: Server, observed: Observed, ref: Ref) -> Object | None:
    """Our object of that name; None where there is none, or one that is not ours."""
    found = observed.get(ref)
    return found if standing(server.resource, found) == Standing.OURS else None


def _is_there(observed: Observed, revision: Revision) -> bool:
    return is_usable(observed.get(claim_ref(revision.artifact.claim)))


def look(server: Server, observed: Observed, old: ModelDeploymentStatus) -> Look:
    """Compare what is there with what is wanted."""
    selection = select(server.job, observed.get(job_ref(server)), old)
    blocked = None
    served = old.candidate if old.candidate and _is_there(observed, old.candidate) else old.stable
    claim = selection.release.artifact.claim if selection.release else None
    if claim and not is_usable(observed.get(claim_ref(claim))):
        blocked = Trouble("ArtifactNotFound", f"the artifact's PersistentVolumeClaim {claim!r} is gone")
        if served and served.artifact.claim != claim:
            said = f"{blocked.message}; still serving {short(served.digest)}"
            selection, blocked = Selection(release_of(served), blocked.reason, said), None
    live = child(server, observed, server.deployment)
    rendered, revision = None, None
    if selection.release:
        if live and is_rendered_from(live, inputs(server, selection.release)):
            revision = revision_of(live)
        else:
            rendered = deployment(server, selection.release)
            revision = revision_of(rendered)
    complete = live is not None and revision is not None and rendered is None and rollout.is_complete(live)
    return Look(
        server=server,
        old=old,
        selection=selection,
        live=live,
        rendered=rendered,
        revision=revision,
        blocked=blocked,
        trouble=rollout.trouble(live, observed.pods, revision) if revision and not complete else None,
        complete=complete,
    )
