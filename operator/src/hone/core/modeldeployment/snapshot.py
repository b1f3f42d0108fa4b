"""What one reconcile of a ModelDeployment compares: the basis of its Plan and its status."""

from dataclasses import dataclass

from hone.api.modeldeployment import ModelDeploymentStatus, ResolvedModel, Revision, Role, ServedArtifactStatus
from hone.core.children import Standing, standing
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.resolution import inspection_ref, resolve, resolved_model, select_resolved
from hone.core.modeldeployment.resources.deployment import deployment, inputs, is_rendered_from, revision_of
from hone.core.modeldeployment.selection import Selection, select, served_artifact, short
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, is_usable
from hone.core.pods import Trouble


@dataclass(frozen=True)
class Snapshot:
    """What exists, what should be served, and what prevents it.

    Attributes:
        server: the resource.
        old: its status as it was read.
        selection: what to serve, and the state of the followed job.
        live: our Deployment, or None.
        rendered: the Deployment to apply, or None if the live one is up to date.
        revision: the desired revision; None where nothing is to be served.
        resolved: what spec.model stands for, if it names no job and that is known.
        inspects: whether a pod has to inspect spec.model, and no Job for that exists.
        blocked: why it cannot be rolled out at all.
        trouble: what keeps the rollout from completing.
        complete: whether the desired revision is rolled out.
    """

    server: Server
    old: ModelDeploymentStatus
    selection: Selection
    live: Object | None
    rendered: Object | None
    revision: str | None
    resolved: ResolvedModel | None
    inspects: bool
    blocked: Trouble | None
    trouble: Trouble | None
    complete: bool

    @property
    def artifact(self) -> ServedArtifactStatus | None:
        """The artifact to serve."""
        return self.selection.artifact

    @property
    def desired(self) -> Revision | None:
        """The desired revision, as status shows it."""
        served = self.selection.served
        if served is None or self.revision is None:
            return None
        artifact, digest = served.artifact, served.artifact.digest
        return Revision(revision=self.revision, digest=digest, job=served.job, model=served.model, artifact=artifact)

    @property
    def stable(self) -> Revision | None:
        """What has been rolled out."""
        return self.desired if self.complete else self.old.stable

    @property
    def candidate(self) -> Revision | None:
        """What is being rolled out."""
        same = self.old.stable is not None and self.old.stable.revision == self.revision
        return None if self.complete or same else self.desired

    @property
    def available(self) -> int:
        """Pods that answer."""
        return rollout.available(self.live)


def job_ref(server: Server) -> Ref | None:
    """The followed job, if there is one."""
    return Ref(str(server.resource["apiVersion"]), "FineTuneJob", server.job) if server.job else None


def claims(status: ModelDeploymentStatus) -> set[str]:
    """The claims whose artifacts are served or rolled out."""
    revisions = [revision for revision in (status.stable, status.candidate) if revision]
    return {revision.artifact.claim for revision in revisions if revision.artifact.claim}


def child(server: Server, observed: Observed, ref: Ref) -> Object | None:
    """Our object of that name; None if there is none, or it is not ours."""
    live = observed.get(ref)
    return live if standing(server.resource, live) == Standing.OURS else None


def _is_there(observed: Observed, revision: Revision) -> bool:
    claim = revision.artifact.claim
    return claim is None or is_usable(observed.get(claim_ref(claim)))


def compare(server: Server, observed: Observed, old: ModelDeploymentStatus) -> Snapshot:
    """Compare what exists with what should be served."""
    selected, resolved, inspects = _select(server, observed, old)
    selection, blocked = _usable(selected, observed, old)
    live = child(server, observed, server.deployment(Role.STABLE))
    rendered, revision = None, None
    if selection.served:
        if live and is_rendered_from(live, inputs(server, selection.served)):
            revision = revision_of(live)
        else:
            rendered = deployment(server, selection.served, Role.STABLE)
            revision = revision_of(rendered)
    complete = live is not None and revision is not None and rendered is None and rollout.is_complete(live)
    return Snapshot(
        server=server,
        old=old,
        selection=selection,
        live=live,
        rendered=rendered,
        revision=revision,
        resolved=resolved,
        inspects=inspects,
        blocked=blocked,
        trouble=rollout.trouble(live, observed.pods, revision) if revision and not complete else None,
        complete=complete,
    )


def _select(
    server: Server, observed: Observed, old: ModelDeploymentStatus
) -> tuple[Selection, ResolvedModel | None, bool]:
    """What to serve; what spec.model stands for, if it names no job; and whether a pod must find that out."""
    followed = job_ref(server)
    if server.job and followed:
        return select(server.job, observed.get(followed), old), None, False
    known: ResolvedModel | Selection | None = resolved_model(server, old)
    inspects = False
    if known is None:
        job = child(server, observed, inspection_ref(server))
        known = resolve(server, job, observed.pods)
        inspects = job is None and isinstance(known, Selection)
    return select_resolved(known, old), known if isinstance(known, ResolvedModel) else None, inspects


def _usable(selection: Selection, observed: Observed, old: ModelDeploymentStatus) -> tuple[Selection, Trouble | None]:
    """The selection, or what is already served if the selected artifact's claim is gone; or what blocks both."""
    claim = selection.artifact.claim if selection.artifact else None
    if claim is None or is_usable(observed.get(claim_ref(claim))):
        return selection, None
    blocked = Trouble("ArtifactNotFound", f"the artifact's PersistentVolumeClaim {claim!r} is gone")
    served = old.candidate if old.candidate and _is_there(observed, old.candidate) else old.stable
    if served is None or served.artifact.claim == claim:
        return selection, blocked
    message = f"{blocked.message}; still serving {short(served.digest)}"
    return Selection(served_artifact(served), blocked.reason, message), None
