"""Reconcile a ModelDeployment: say what will be served, own it, serve it, then give up what is no longer served."""

from datetime import datetime

from pydantic import ValidationError

from hone.api.modeldeployment import ModelDeploymentStatus, Phase
from hone.core import refusal
from hone.core.children import Standing, standing
from hone.core.conditions import Finding, kstatus, merge
from hone.core.kind import Fetched
from hone.core.modeldeployment.resources.deployment import scale
from hone.core.modeldeployment.resources.service import differs, service
from hone.core.modeldeployment.selection import select
from hone.core.modeldeployment.server import Server
from hone.core.modeldeployment.snapshot import Look, child, claims, job_ref, look
from hone.core.modeldeployment.status.events import events
from hone.core.modeldeployment.status.status import status
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, give_back, is_usable, take
from hone.core.plan import Apply, Plan
from hone.core.settings import Settings

CONFLICT_SECONDS = 60.0
"""How soon to look whether a foreign object has gone: its events do not reach us."""
COLLECTION_SECONDS = 2.0
"""How soon to look whether garbage collection has taken what a resource of our name left."""
BLOCKED_SECONDS = 30.0


def idle(resource: Object) -> bool:
    """Whether nothing is due: only while the resource is being deleted."""
    return "deletionTimestamp" in resource["metadata"]


def refs(resource: Object, fetched: Fetched, settings: Settings) -> tuple[Ref, ...]:
    """What to read: job, Deployment and Service; then the claims of all artifacts in question."""
    if idle(resource):
        return ()
    try:
        server = Server.of(resource, settings)
    except ValidationError:
        return ()
    old, job = _old(resource), job_ref(server)
    wanted = claims(old)
    if job in fetched and (release := select(server.job, fetched[job], old).release):
        wanted.add(release.artifact.claim)
    return (job, server.deployment, server.service, *(claim_ref(claim) for claim in sorted(wanted)))


def follows(resource: Object) -> tuple[Ref, ...]:
    """The job whose events wake us."""
    try:
        return (job_ref(Server.of(resource, Settings())),)
    except ValidationError:
        return ()


def reconcile(resource: Object, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """What to do; see `Kind.reconcile`."""
    if idle(resource):
        return Plan()
    try:
        server = Server.of(resource, settings)
    except ValidationError as error:
        return _stopped(resource, "Stalled", "InvalidSpec", refusal.spec_fault(error), now)
    for ref in (server.deployment, server.service):
        whose = standing(resource, observed.get(ref))
        if whose == Standing.FOREIGN:
            return _stopped(resource, "Stalled", "NameConflict", refusal.name_taken(ref), now, CONFLICT_SECONDS)
        if whose == Standing.PREDECESSOR:
            said = f"{ref.kind} {ref.name!r} of a deleted ModelDeployment of this name has yet to go"
            return _stopped(resource, "Reconciling", "Terminating", said, now, COLLECTION_SECONDS)
    old = _old(resource)
    found = look(server, observed, old)
    new = status(found, now)
    announced = found.release is None or found.release.artifact.claim in claims(old)
    serve = _serve(found, observed) if announced else []
    return Plan(
        apply=(*serve, *_give_back(server, observed, claims(old) - claims(new))),
        status=_changed(resource, new),
        events=events(old, new),
        requeue_after=_requeue(found) if announced else 0.0,
    )


def refused(resource: Object, plan: Plan, target: str, words: str, now: datetime) -> Plan:
    """The Plan after a write was refused for good; see `Kind.refused`."""
    return _stopped(resource, "Stalled", "Refused", refusal.refused(target, words), now)


def _requeue(found: Look) -> float | None:
    return BLOCKED_SECONDS if found.blocked or found.selection.reason == "ArtifactNotFound" else None


def _serve(found: Look, observed: Observed) -> list[Apply]:
    """Own the artifact's claim, then apply what differs. In this order: what is served must not be collected.

    Only once the status names the claim: an owner reference that no status tells of would never be given back.
    """
    server = found.server
    if found.release is None:
        return []
    claim = observed.get(claim_ref(found.release.artifact.claim))
    applies = [take(server, claim)] if claim is not None and is_usable(claim) else []
    if differs(server, child(server, observed, server.service)):
        applies.append(Apply(service(server)))
    if found.rendered is not None and not found.blocked:
        applies.append(Apply(found.rendered))
    elif found.live is not None:
        applies.append(scale(server, found.live))
    return [apply for apply in applies if apply is not None]


def _give_back(server: Server, observed: Observed, dropped: set[str]) -> list[Apply]:
    given = (give_back(server, observed.get(claim_ref(claim))) for claim in sorted(dropped))
    return [apply for apply in given if apply is not None]


def _old(resource: Object) -> ModelDeploymentStatus:
    return ModelDeploymentStatus.from_dict(resource.get("status") or {})


def _stopped(
    resource: Object, state: str, reason: str, message: str, now: datetime, requeue: float | None = None
) -> Plan:
    """A deployment that cannot go on for now; what was known of it stays."""
    old, generation = _old(resource), resource["metadata"].get("generation")
    said = kstatus(state, reason, message)
    kept = [
        Finding(c.type, c.status, c.reason, c.message)
        for c in old.conditions
        if c.type not in {finding.type for finding in said}
    ]
    phase = old.phase if old.phase == Phase.AVAILABLE else Phase.FAILED if state == "Stalled" else Phase.PENDING
    new = old.model_copy(
        update={
            "phase": phase,
            "observed_generation": generation,
            "conditions": merge(old.conditions, [*kept, *said], generation, now),
        }
    )
    return Plan(status=_changed(resource, new), events=events(old, new), requeue_after=requeue)


def _changed(resource: Object, new: ModelDeploymentStatus) -> Object | None:
    """The new status, or None where it is the one that stands there."""
    made = new.to_dict()
    return None if made == (resource.get("status") or {}) else made
