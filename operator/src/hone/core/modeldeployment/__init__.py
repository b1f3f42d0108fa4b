"""Decisions about the kind ModelDeployment."""

from hone.api import API_VERSION
from hone.api.modeldeployment import KIND, PLURAL
from hone.core.kind import Kind, ProgressTarget
from hone.core.modeldeployment.children import CHILD_TYPES
from hone.core.modeldeployment.reconcile import follows, idle, reconcile, refs, refused
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object, Pod


def _no_progress(resource: Object, pods: tuple[Pod, ...]) -> ProgressTarget | None:
    return None


MODELDEPLOYMENT = Kind(
    name=KIND,
    plural=PLURAL,
    api_version=API_VERSION,
    subject=Server,
    children=CHILD_TYPES,
    refs=refs,
    # Applied objects would take over whatever exists under their names. These are only created.
    may_lack=lambda server, ref: ref.kind in ("Job", "ConfigMap"),
    reconcile=reconcile,
    reads_nodes=lambda server: False,
    reads_peers=lambda server: False,
    progress_target=_no_progress,
    # A candidate may still be getting requests. What is given back are only claims that it sees.
    is_drastic=lambda server, observed, plan: bool(plan.delete),
    idle=idle,
    follows=follows,
    refused=refused,
)
