"""The table of both kinds, and of the child kinds that are watched."""

from hone.core.finetunejob import FINETUNEJOB
from hone.core.kind import Kind
from hone.core.modeldeployment import MODELDEPLOYMENT

KINDS: dict[str, Kind] = {kind.name: kind for kind in (FINETUNEJOB, MODELDEPLOYMENT)}
"""Every kind that the operator reconciles, by its name."""

WATCHED_CHILDREN: tuple[tuple[str, str, str], ...] = (
    ("v1", "Pod", "pods"),
    ("v1", "Service", "services"),
    ("batch/v1", "Job", "jobs"),
    ("apps/v1", "Deployment", "deployments"),
)
"""(api version, kind, plural) of the children whose events wake their owner (`names.owner_of`).

Claims and ConfigMaps are not among them: they change once, and the next look finds them.
"""
