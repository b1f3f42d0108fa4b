"""The table of the objects that a ModelDeployment creates, in the order in which they are applied."""

from collections.abc import Callable
from dataclasses import dataclass

from hone.api.modeldeployment import Role
from hone.core.children import ChildType, Write
from hone.core.modeldeployment import rollout
from hone.core.modeldeployment.canary import delays_scaling
from hone.core.modeldeployment.resources import networkpolicy
from hone.core.modeldeployment.resources.access import CONFIG_MAP
from hone.core.modeldeployment.resources.deployment import scale
from hone.core.modeldeployment.resources.disruption import BUDGET, budget
from hone.core.modeldeployment.resources.fetching import downloads
from hone.core.modeldeployment.resources.revision import RECORD
from hone.core.modeldeployment.resources.service import differs, divided, service
from hone.core.modeldeployment.server import Server
from hone.core.modeldeployment.snapshot import Snapshot
from hone.core.network import APPLIED_POLICY
from hone.core.observed import Object, Ref
from hone.core.plan import Apply


@dataclass(frozen=True)
class Row:
    """An object that a ModelDeployment has once.

    Attributes:
        type: its type.
        name: its name, without rendering it.
        apply: brings the live object (None if it does not exist) to its desired state; None if it is up to date.
        is_needed: whether the ModelDeployment has it.
    """

    type: ChildType
    name: Callable[[Server], str]
    apply: Callable[[Snapshot, Object | None], Apply | None]
    is_needed: Callable[[Server], bool] = lambda server: True

    def ref(self, server: Server) -> Ref:
        """Its Ref."""
        return self.type.ref(self.name(server))


def _service(snapshot: Snapshot, live: Object | None) -> Apply | None:
    desired = service(snapshot.server, selector=divided(snapshot.server, snapshot.weight))
    return Apply(desired) if differs(desired, live) else None


def _candidate_service(snapshot: Snapshot, live: Object | None) -> Apply | None:
    desired = service(snapshot.server, Role.CANDIDATE)
    return Apply(desired) if snapshot.canary and differs(desired, live) else None


def _network_policy(snapshot: Snapshot, live: Object | None) -> Apply | None:
    server, fetches = snapshot.server, _downloads(snapshot)
    if not networkpolicy.differs(server, live, fetches):
        return None
    return Apply(networkpolicy.network_policy(server, fetches))


def _downloads(snapshot: Snapshot) -> bool:
    """Whether pods download a model: what the spec names, what is to be served, or what still is."""
    served, stable = snapshot.selection.served, snapshot.stable
    models = (snapshot.server.spec.model, served.model if served else None, stable.model if stable else None)
    return any(downloads(model) for model in models)


def _budget(snapshot: Snapshot, live: Object | None) -> Apply | None:
    """Once: nothing of it depends on the spec."""
    return Apply(budget(snapshot.server)) if live is None else None


def _deployment(snapshot: Snapshot, live: Object | None) -> Apply | None:
    if snapshot.rendered is not None and not snapshot.blocked:
        return Apply(snapshot.rendered)
    server, move = snapshot.server, snapshot.canary
    if live is None or (move and delays_scaling(server, move.step, move.weight, rollout.desired(live))):
        return None
    return scale(server, live, Role.STABLE, server.spec.replicas)


def _candidate(snapshot: Snapshot, live: Object | None) -> Apply | None:
    """The candidate's Deployment, with as many pods as its share needs."""
    move = snapshot.canary
    if move is None or snapshot.blocked:
        return None
    if snapshot.tried is None:
        return scale(snapshot.server, live, Role.CANDIDATE, move.replicas) if live is not None else None
    return Apply({**snapshot.tried, "spec": {**snapshot.tried["spec"], "replicas": move.replicas}})


CHILDREN: tuple[Row, ...] = (
    # First, so that no pod exists without it.
    Row(
        APPLIED_POLICY,
        name=lambda server: server.network_policy.name,
        apply=_network_policy,
        is_needed=lambda server: server.settings.network_policies is not None,
    ),
    Row(
        ChildType("v1", "Service", Write.APPLY, watched=True),
        name=lambda server: server.service.name,
        apply=_service,
    ),
    Row(
        BUDGET,
        name=lambda server: server.budget.name,
        apply=_budget,
    ),
    Row(
        ChildType("apps/v1", "Deployment", Write.APPLY, watched=True),
        name=lambda server: server.deployment(Role.STABLE).name,
        apply=_deployment,
    ),
)
CANDIDATE: tuple[Row, ...] = (
    Row(
        ChildType("apps/v1", "Deployment", Write.APPLY, watched=True),
        name=lambda server: server.deployment(Role.CANDIDATE).name,
        apply=_candidate,
        is_needed=lambda server: server.has_candidates,
    ),
    Row(
        ChildType("v1", "Service", Write.APPLY, watched=True),
        name=lambda server: server.service_of(Role.CANDIDATE).name,
        apply=_candidate_service,
        is_needed=lambda server: server.has_candidates,
    ),
)
"""What a candidate has next to the stable revision; it is deleted once that is over."""
JOB = ChildType("batch/v1", "Job", Write.CREATE_ONCE, watched=True)
"""The Job that inspects a published model. It is not in the table: each spec.model has its own."""
CHILD_TYPES = (*(row.type for row in CHILDREN), JOB, CONFIG_MAP, RECORD)
"""The types of all objects that a ModelDeployment creates, but for the Secret with its keys, which is never read."""


def needed(server: Server) -> list[Row]:
    """The objects that this ModelDeployment has."""
    return [row for row in (*CHILDREN, *CANDIDATE) if row.is_needed(server)]
