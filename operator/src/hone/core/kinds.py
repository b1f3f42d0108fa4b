"""The table of both kinds, and of the child kinds that are watched."""

from hone.core.finetunejob import FINETUNEJOB
from hone.core.kind import AnyKind
from hone.core.modeldeployment import MODELDEPLOYMENT
from hone.core.names import plural

KINDS: dict[str, AnyKind] = {kind.name: kind for kind in (FINETUNEJOB, MODELDEPLOYMENT)}
"""Every kind that the operator reconciles, by its name."""

_POD = ("v1", "Pod", "pods")
"""Created by the children of our kinds, with our labels."""

WATCHED_CHILDREN: tuple[tuple[str, str, str], ...] = (
    _POD,
    *sorted(
        {
            (child.api_version, child.kind, plural(child.kind))
            for kind in KINDS.values()
            for child in kind.children
            if child.watched
        }
    ),
)
"""(api version, kind, plural) of the children whose events trigger a reconcile of their owner (`names.owner_of`)."""
