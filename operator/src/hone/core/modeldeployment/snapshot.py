"""What one reconcile of a ModelDeployment compares: the basis of its Plan and its status."""

from dataclasses import dataclass, replace
from datetime import datetime

from hone.api.modeldeployment import (
    Candidate,
    ModelDeploymentStatus,
    ResolvedModel,
    Revision,
    Role,
    ServedArtifactStatus,
)
from hone.api.rollout import HISTORY, Rejected, Strategy
from hone.contract.analysis import AnalysisVerdict
from hone.core import reported
from hone.core.children import Standing, standing
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.analysis import Analyzed, analyzed, due, key_of, settings
from hone.core.modeldeployment.analysis import job_ref as job_ref_of
from hone.core.modeldeployment.canary import UNSCHEDULABLE, Canary, advance, is_over
from hone.core.modeldeployment.resolution import inspection_ref, resolve, resolved_model, select_resolved
from hone.core.modeldeployment.resources.deployment import deployment, inputs, is_rendered_from, revision_of
from hone.core.modeldeployment.resources.revision import plain, record_ref, recorded_deployment, recorded_revision
from hone.core.modeldeployment.resources.service import divided
from hone.core.modeldeployment.selection import Selection, ServedArtifact, select, served_artifact, short
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, is_usable
from hone.core.pods import Trouble

REJECTED = "CandidateRejected"
"""Reason of what is served in place of a rejected revision."""
WORSE = "AnalysisFailed"
"""Reason of a revision that was rejected for its answers."""


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
        known: the stable revision, by the status, or where that was lost by the Deployment's label.
        other: our Deployment of a candidate, or None.
        canary: the next move of a candidate next to the stable revision; None: there is none.
        tried: the candidate's Deployment to apply, or None if the live one is up to date.
        analysis: how far the analysis of the candidate is; None: there is none.
        rejection: why the desired revision is given up from now on; None: it is not.
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
    known: Revision | None
    other: Object | None
    canary: Canary | None
    tried: Object | None
    analysis: Analyzed | None
    rejection: Rejected | None
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
        return self.desired if self.complete else self.known

    @property
    def is_new(self) -> bool:
        """Whether what is wanted is another revision than the stable one."""
        return self.known is None or self.known.revision != self.revision

    @property
    def candidate(self) -> Candidate | None:
        """What is being rolled out."""
        if self.complete or not self.is_new or self.desired is None or self.rejection:
            return None
        move, old = self.canary, candidate_of(self.old, self.revision)
        new = Candidate(**self.desired.model_dump())
        if move:
            return new.model_copy(update={"weight": move.weight, "step": move.step, "since": move.since})
        # It replaces the stable one. Its own pods keep their share until that is done, if there is room.
        weight = old.weight if old and self.keeps_other and rollout.available(self.other) else None
        return new.model_copy(update={"weight": weight, "step": old.step if old else None})

    @property
    def rejected(self) -> list[Rejected]:
        """The revisions that were tried and are not served."""
        return [*(self.old.rejected or []), *([self.rejection] if self.rejection else [])][-HISTORY:]

    @property
    def keeps_other(self) -> bool:
        """Whether the candidate's own pods stay until the stable ones are of its revision: while there is room."""
        lacks_room = self.trouble is not None and self.trouble.reason == UNSCHEDULABLE
        is_due = self.server.strategy == Strategy.CANARY and not self.complete and self.is_new
        return is_due and not lacks_room and self.other is not None and revision_of(self.other) == self.revision

    @property
    def tries(self) -> bool:
        """Whether the candidate's own pods stay or are to be."""
        return self.canary is not None or self.keeps_other

    @property
    def weight(self) -> int:
        """Percent of the requests that go to the candidate's own pods from now on."""
        return (self.candidate.weight or 0) if self.candidate and self.tries else 0

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


def candidate_of(status: ModelDeploymentStatus, revision: str | None) -> Candidate | None:
    """The candidate of the status, if it has this revision."""
    return status.candidate if status.candidate and status.candidate.revision == revision else None


def _passed(status: ModelDeploymentStatus, live: Object | None) -> Revision | None:
    """The candidate that has passed its steps, while it replaces the stable one: what is stable if it is superseded."""
    last = status.candidate
    if last is None or last.step is None or live is None or revision_of(live) != last.revision:
        return None
    return plain(last)


def _stable_deployment(
    server: Server, observed: Observed, live: Object | None, known: Revision | None, passed: Revision | None
) -> Object | None:
    """The Deployment next to which a candidate is tried: ours, or the recorded one to be applied again.

    That is where somebody deleted ours, or another strategy was replacing its pods by those of a third revision: its
    candidate has not passed its steps by that.
    """
    if live and revision_of(live) in {each.revision for each in (known, passed) if each}:
        return live
    return _recorded_deployment(server, observed, known.revision) if known else None


def compare(server: Server, observed: Observed, old: ModelDeploymentStatus, now: datetime) -> Snapshot:
    """Compare what exists with what should be served."""
    selected, resolved, inspects = _select(server, observed, old)
    selection, blocked = _usable(selected, observed, old)
    live = child(server, observed, server.deployment(Role.STABLE))
    other = child(server, observed, server.deployment(Role.CANDIDATE)) if server.has_candidates else None
    known = old.stable or (_recorded(server, observed, live) if _is_lost(server, old) else None)
    held = rejected_as(server, old, selection.served) if known and selection.served else None
    if held and known and held.revision == known.revision:
        held = None  # It was tried again since, with another spec.rollout.retry.
    rendered, revision, canary, tried, comparison = None, None, None, None, None
    passed = _passed(old, live)
    stable = _stable_deployment(server, observed, live, known, passed)
    if held and known:
        known = passed or known
        selection = _still(selection, known, held)
        revision = known.revision
        rendered = None if live and revision_of(live) == revision else _recorded_deployment(server, observed, revision)
    elif selection.served:
        digest = inputs(server, selection.served)
        if live and is_rendered_from(live, digest):
            revision = revision_of(live)
        elif known and stable and server.strategy == Strategy.CANARY:
            rendered = None if stable is live else stable
            tried = None if is_rendered(other, digest) else deployment(server, selection.served, Role.CANDIDATE)
            revision = revision_of(tried or other or {})
            before = candidate_of(old, revision)
            if passed and revision not in (known.revision, passed.revision):
                known = passed
            # An edit may change no pod: then there is nothing to try.
            if is_over(server, before) or revision == known.revision:
                rendered, tried = deployment(server, selection.served, Role.STABLE), None
            else:
                current = None if tried else other
                trouble = rollout.trouble(current, observed.pods, revision)
                in_force = _is_divided(server, observed, before)
                comparison = _analyzed(server, observed, old, known.revision, before)
                canary = advance(server, before, stable, current, trouble, in_force, comparison, now)
        else:
            rendered = deployment(server, selection.served, Role.STABLE)
            revision = revision_of(rendered)
    is_live = live is not None and revision is not None and rendered is None and canary is None
    complete = is_live and rollout.is_complete(live or {}) and (held is None or revision_of(live or {}) == revision)
    running = other if canary else live
    can_go_back = canary is not None or (known and _recorded_deployment(server, observed, known.revision) is not None)
    may_reject = server.spec.rollout is not None and not (complete or held) and can_go_back
    rejection = _rejection(server, observed, selection.served, known, revision, comparison) if may_reject else None
    return Snapshot(
        server=server,
        old=old,
        selection=selection,
        live=live,
        rendered=rendered,
        revision=revision,
        known=known,
        other=other,
        canary=canary,
        tried=tried,
        analysis=comparison,
        rejection=rejection,
        resolved=resolved,
        inspects=inspects,
        blocked=blocked,
        trouble=rollout.trouble(running, observed.pods, revision) if revision and not complete else None,
        complete=complete,
    )


def is_rendered(live: Object | None, digest: str) -> bool:
    """Whether there is a Deployment that was rendered from these inputs."""
    return live is not None and is_rendered_from(live, digest)


def rejected_as(server: Server, old: ModelDeploymentStatus, served: ServedArtifact) -> Rejected | None:
    """Why spec and artifact are not tried: they were, without another spec.rollout.retry since."""
    if server.spec.rollout is None:
        return None
    digest, retry = inputs(server, served), server.spec.rollout.retry
    return next((each for each in old.rejected or [] if (each.inputs, each.retry) == (digest, retry)), None)


def recorded_to_read(server: Server, old: ModelDeploymentStatus, live: Object | None) -> list[Ref]:
    """The ControllerRevision of what was stable: to go back to it, or to know it where the status was lost."""
    if server.spec.rollout is None:
        return []
    if old.stable:
        is_served = live is not None and revision_of(live) == old.stable.revision
        return [] if is_served else [record_ref(server, old.stable.revision)]
    return [record_ref(server, revision_of(live))] if live and revision_of(live) and _is_lost(server, old) else []


def _is_lost(server: Server, old: ModelDeploymentStatus) -> bool:
    """Whether there is no status: before the first reconcile, or since somebody removed it."""
    return server.spec.rollout is not None and old.stable is None and old.candidate is None


def _recorded(server: Server, observed: Observed, live: Object | None) -> Revision | None:
    """What the Deployment serves, by its label; None if nothing recorded that."""
    if live is None or not revision_of(live):
        return None
    return recorded_revision(server, observed.get(record_ref(server, revision_of(live))))


def _recorded_deployment(server: Server, observed: Observed, revision: str) -> Object | None:
    """The Deployment of a revision, where its ControllerRevision was read."""
    return recorded_deployment(server, observed.objects.get(record_ref(server, revision)))


def _still(selection: Selection, known: Revision, why: Rejected) -> Selection:
    """What is served in place of a rejected revision."""
    message = f"{why.message}; still serving {short(known.digest)}"
    return replace(selection, served=served_artifact(known), reason=REJECTED, message=message, is_current=False)


def _analyzed(
    server: Server, observed: Observed, old: ModelDeploymentStatus, stable: str, candidate: Candidate | None
) -> Analyzed | None:
    """How far the analysis of a candidate is that has not begun its steps; nothing yet where no status names it."""
    if settings(server) is None or (candidate and candidate.step is not None):
        return None
    if candidate is None:
        return Analyzed("")
    key = key_of(server, stable, candidate.revision)
    job = child(server, observed, job_ref_of(server, key)) if due(server, old) == key else None
    return analyzed(server, old, key, job, observed.pods)


def _rejection(
    server: Server,
    observed: Observed,
    served: ServedArtifact | None,
    known: Revision | None,
    revision: str | None,
    comparison: Analyzed | None,
) -> Rejected | None:
    """Whether the desired revision is given up: its answers are worse, or its servers end again and again, and those
    before do not."""
    if server.spec.rollout is None or served is None or known is None or not revision or known.revision == revision:
        return None
    why = rollout.crash_loop(observed.pods, revision)
    why = None if why and rollout.crash_loop(observed.pods, known.revision) else why
    if comparison and comparison.result and comparison.result.verdict == AnalysisVerdict.FAIL:
        why = Trouble(WORSE, comparison.result.message)
    if why is None:
        return None
    message = reported.text(f"revision {revision} ({short(served.artifact.digest)}): {why.message}")
    retry = server.spec.rollout.retry
    return Rejected(revision=revision, reason=why.reason, message=message, inputs=inputs(server, served), retry=retry)


def _is_divided(server: Server, observed: Observed, candidate: Candidate | None) -> bool:
    """Whether requests go where the status says."""
    live = child(server, observed, server.service)
    weight = (candidate.weight if candidate else 0) or 0
    return live is not None and live["spec"].get("selector") == divided(server, weight)


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
