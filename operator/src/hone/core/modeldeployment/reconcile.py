"""Reconcile a ModelDeployment: record what will be served, own it, serve it, then give back what is not served."""

from collections.abc import Sequence
from datetime import datetime

from hone.api.modeldeployment import ModelDeploymentStatus, Phase, Revision, Role
from hone.contract.rules import refusals
from hone.contract.rules.modeldeployment import RULES
from hone.core import refusal
from hone.core.allowlists import not_allowed
from hone.core.children import Standing, ref_of, standing
from hone.core.kind import Fetched
from hone.core.modeldeployment.analysis import due, superseded
from hone.core.modeldeployment.analysis import job_ref as job_ref_of
from hone.core.modeldeployment.children import CANDIDATE, Row, needed
from hone.core.modeldeployment.resolution import inspection_ref, is_unresolved
from hone.core.modeldeployment.resources import access
from hone.core.modeldeployment.resources.analysis import analysis
from hone.core.modeldeployment.resources.deployment import deployment, revision_of
from hone.core.modeldeployment.resources.inspection import inspection
from hone.core.modeldeployment.resources.revision import history, record, record_ref, surplus, unrecorded
from hone.core.modeldeployment.selection import select, served_artifact
from hone.core.modeldeployment.server import Server
from hone.core.modeldeployment.snapshot import Snapshot, child, claims, compare, job_ref, recorded_to_read
from hone.core.modeldeployment.status.events import events
from hone.core.modeldeployment.status.status import status
from hone.core.network import APPLIED_POLICY, has_unwanted, removal
from hone.core.observed import Object, Observed, Ref
from hone.core.ownership import claim_ref, give_back, is_usable, take
from hone.core.plan import Apply, Delete, Plan
from hone.core.settings import Settings
from hone.core.status import CONFLICT_SECONDS, changed, generation, stopped

COLLECTION_SECONDS = 2.0
"""How soon to check whether garbage collection has removed the children of a deleted resource of the same name."""
BLOCKED_SECONDS = 30.0


def idle(resource: Object) -> bool:
    """Whether nothing is due: only while the resource is being deleted."""
    return "deletionTimestamp" in resource["metadata"]


def refs(server: Server, fetched: Fetched) -> tuple[Ref, ...]:
    """What to read: the job and our children; then the claims of the artifacts."""
    if server.fault or idle(server.resource):
        return ()
    old, followed = _old(server.resource), job_ref(server)
    read = claims(old)
    unwanted = has_unwanted(server.settings.network_policies, old.network_policy)
    if server.job and followed and followed in fetched:
        artifact = select(server.job, fetched[followed], old).artifact
        read |= {artifact.claim} if artifact and artifact.claim else set()
    children = [access.module(server), *(row.ref(server) for row in needed(server))]
    children += [server.network_policy] if unwanted else []
    named = [followed] if followed else _inspected(server, old)
    return (*named, *children, *(claim_ref(claim) for claim in sorted(read)), *_records(server, old, fetched))


def _records(server: Server, old: ModelDeploymentStatus, fetched: Fetched) -> list[Ref]:
    """The ControllerRevisions to read, to go back to, to be created or to be deleted, and the Job of an analysis."""
    stable = server.deployment(Role.STABLE)
    back = recorded_to_read(server, old, fetched[stable]) if stable in fetched else []
    named = [each.revision for each in unrecorded(server, old)] + surplus(server, old)
    key = due(server, old)
    jobs = [job_ref_of(server, key)] if key else []
    refs_ = [*back, *jobs, *_superseded(server, old), *(record_ref(server, each) for each in named)]
    return list(dict.fromkeys(refs_))


def _inspected(server: Server, old: ModelDeploymentStatus) -> list[Ref]:
    """The Job that inspects spec.model, as long as its result is not known."""
    return [inspection_ref(server)] if is_unresolved(server, old) else []


def follows(resource: Object) -> tuple[Ref, ...]:
    """The job whose events wake us."""
    server = Server(resource, Settings())
    followed = None if server.fault else job_ref(server)
    return (followed,) if followed else ()


def reconcile(server: Server, observed: Observed, now: datetime) -> Plan:
    """What to do; see `Kind.reconcile`."""
    resource = server.resource
    if idle(resource):
        return Plan()
    if server.fault:
        return _stopped(resource, "Stalled", "InvalidSpec", refusal.spec_fault(server.fault), now)
    model = server.spec.model
    images = {
        "spec.runtime.image": server.runtime.image,
        "spec.model.image.reference": model.image.reference if model.image else None,
        "spec.model.base.image.reference": model.base.image.reference if model.base and model.base.image else None,
    }
    if trouble := not_allowed(server.settings.allow_lists, resource, "spec.pod", server.spec.pod, images):
        return _stopped(resource, "Stalled", trouble.reason, trouble.message, now)
    # The CRD refuses these; a resource may be older than the rule.
    if broken := next(iter(refusals(RULES, resource)), None):
        return _stopped(resource, "Stalled", "InvalidSpec", refusal.rule_broken(broken), now)
    if taken := _name_taken(server, observed, now):
        return taken
    old = _old(resource)
    snapshot = compare(server, observed, old, now)
    added, dropped = unrecorded(server, old), surplus(server, old)
    new = status(snapshot, now).model_copy(update={"history": history(old, added, dropped)})
    claim = snapshot.artifact.claim if snapshot.artifact else None
    announced = claim is None or claim in claims(old)
    serve = _serve(snapshot, observed) if announced else []
    create = (
        *_inspection(snapshot, observed),
        *_guard(snapshot, observed),
        *_analysis_job(snapshot, old),
        *_recorded_now(snapshot, observed, added),
    )
    return Plan(
        create=create,
        apply=(*serve, *_give_back(server, observed, claims(old) - claims(new))),
        delete=(
            *_unwanted(server, observed, old),
            *_candidate_over(snapshot, observed),
            *_deletes(server, observed, _superseded(server, old)),
            *_deletes(server, observed, [record_ref(server, each) for each in dropped]),
        ),
        status=changed(resource, new),
        events=events(old, new),
        requeue_after=_requeue(snapshot) if announced and (create or not snapshot.inspects) else 0.0,
    )


def refused(resource: Object, plan: Plan, target: str, words: str, now: datetime) -> Plan:
    """The Plan after a write was refused for good; see `Kind.refused`."""
    return _stopped(resource, "Stalled", "Refused", refusal.refused(target, words), now)


def _name_taken(server: Server, observed: Observed, now: datetime) -> Plan | None:
    """The Plan where an object that is not ours has the name of a child, or None."""
    resource = server.resource
    children = [access.module(server), *(row.ref(server) for row in needed(server))]
    for ref in [*children, *_inspected(server, _old(resource))]:
        whose = standing(resource, observed.get(ref))
        if whose == Standing.FOREIGN:
            return _stopped(resource, "Stalled", "NameConflict", refusal.name_taken(ref), now, CONFLICT_SECONDS)
        if whose == Standing.PREDECESSOR:
            message = f"waiting for {ref.kind} {ref.name!r} of a deleted ModelDeployment with this name to be removed"
            return _stopped(resource, "Reconciling", "Terminating", message, now, COLLECTION_SECONDS)
    return None


def _requeue(snapshot: Snapshot) -> float | None:
    if snapshot.canary and snapshot.canary.due is not None:
        return snapshot.canary.due
    return BLOCKED_SECONDS if snapshot.blocked or snapshot.selection.reason == "ArtifactNotFound" else None


def _serve(snapshot: Snapshot, observed: Observed) -> list[Apply]:
    """Own the artifact's claim, then apply what differs. In this order: what is served must not be collected.

    Only once the status names the claim: an owner reference that no status records would never be given back.
    """
    server = snapshot.server
    name = snapshot.artifact.claim if snapshot.artifact else None
    claim = observed.get(claim_ref(name)) if name else None
    applies = [take(server, claim)] if claim is not None and is_usable(claim) else []
    applies += [row.apply(snapshot, child(server, observed, row.ref(server))) for row in _rows(snapshot)]
    return [apply for apply in applies if apply is not None]


def _rows(snapshot: Snapshot) -> list[Row]:
    """The objects that are needed now: before anything can be served, what the pod that inspects the model needs."""
    rows = needed(snapshot.server)
    if snapshot.artifact:
        return rows
    return [row for row in rows if row.type == APPLIED_POLICY] if snapshot.inspects else []


def _inspection(snapshot: Snapshot, observed: Observed) -> tuple[Object, ...]:
    """The Job that inspects the model, once no pod of it could exist without the NetworkPolicy."""
    server = snapshot.server
    policies = [row.ref(server) for row in needed(server) if row.type == APPLIED_POLICY]
    protected = all(observed.get(ref) is not None for ref in policies)
    return (inspection(server),) if snapshot.inspects and protected else ()


def _guard(snapshot: Snapshot, observed: Observed) -> list[Object]:
    """What guards servers that are about to be rendered. A Secret cannot be seen, and is created if there is none.

    The ConfigMap comes back as well where somebody deleted it: no pod of a server that exists could start without it.
    """
    if snapshot.blocked:
        return []
    objects = access.objects(snapshot.server)
    missing = [obj for obj in objects if ref_of(obj).kind == "Secret" or observed.get(ref_of(obj)) is None]
    if snapshot.rendered is not None or snapshot.tried is not None:
        return missing
    used = [live for live in (snapshot.live, snapshot.other) if live is not None]
    return [obj for obj in missing if any(access.is_guarded_by(live, obj["metadata"]["name"]) for live in used)]


def _unwanted(server: Server, observed: Observed, old: ModelDeploymentStatus) -> tuple[Delete, ...]:
    """Deletes the NetworkPolicy after the administrator has switched policies off."""
    if not has_unwanted(server.settings.network_policies, old.network_policy):
        return ()
    return tuple(removal(server.resource, server.network_policy, observed))


def _recorded_now(snapshot: Snapshot, observed: Observed, added: list[Revision]) -> list[Object]:
    """The ControllerRevisions that do not exist yet."""
    server = snapshot.server
    new = [each for each in added if observed.get(record_ref(server, each.revision)) is None]
    return [record(server, each, _rendered(server, each)) for each in new]


def _rendered(server: Server, revision: Revision) -> Object | None:
    """The Deployment of a revision; None if spec and release of today render another one of its artifact."""
    rendered = deployment(server, served_artifact(revision), Role.STABLE)
    return rendered if revision_of(rendered) == revision.revision else None


def _analysis_job(snapshot: Snapshot, old: ModelDeploymentStatus) -> list[Object]:
    """The Job of the analysis, once the candidate is ready and the status names it."""
    move, comparison, served, stable = snapshot.canary, snapshot.analysis, snapshot.selection.served, snapshot.live
    if not (move and comparison and served and stable) or not move.is_asked or comparison.has_job:
        return []
    is_due = due(snapshot.server, old) == comparison.key
    return [analysis(snapshot.server, served, comparison.key, stable)] if is_due else []


def _superseded(server: Server, old: ModelDeploymentStatus) -> list[Ref]:
    """The Job of an analysis whose result nobody needs any more."""
    key = superseded(server, old)
    return [job_ref_of(server, key)] if key else []


def _candidate_over(snapshot: Snapshot, observed: Observed) -> list[Delete]:
    """Deletes what a candidate had next to the stable revision once that is over."""
    if snapshot.tries or snapshot.live is None:
        return []
    rows = [row for row in CANDIDATE if row.is_needed(snapshot.server)]
    return _deletes(snapshot.server, observed, [row.ref(snapshot.server) for row in rows])


def _deletes(server: Server, observed: Observed, refs_: Sequence[Ref]) -> list[Delete]:
    """Deletes those of the objects that exist and are ours."""
    lives = ((ref, child(server, observed, ref)) for ref in refs_)
    return [Delete(ref, live["metadata"]["uid"]) for ref, live in lives if live is not None]


def _give_back(server: Server, observed: Observed, dropped: set[str]) -> list[Apply]:
    applies = (give_back(server, observed.get(claim_ref(claim))) for claim in sorted(dropped))
    return [apply for apply in applies if apply is not None]


def _old(resource: Object) -> ModelDeploymentStatus:
    return ModelDeploymentStatus.from_dict(resource.get("status") or {})


def _stopped(
    resource: Object, state: str, reason: str, message: str, now: datetime, requeue: float | None = None
) -> Plan:
    """A deployment that cannot continue for now; what is known about it stays."""
    old = _old(resource)
    phase = old.phase if old.phase == Phase.AVAILABLE else Phase.FAILED if state == "Stalled" else Phase.PENDING
    update = {
        "phase": phase,
        "observed_generation": generation(resource),
        "conditions": stopped(resource, old.conditions, old.conditions, state, reason, message, now),
    }
    new = old.model_copy(update=update)
    return Plan(status=changed(resource, new), events=events(old, new), requeue_after=requeue)
