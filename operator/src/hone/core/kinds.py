"""The table of both kinds, and of everything that is watched."""

from dataclasses import dataclass

from hone.core.finetunejob import FINETUNEJOB
from hone.core.kind import AnyKind
from hone.core.modeldeployment import MODELDEPLOYMENT
from hone.core.names import MANAGED_BY, MANAGED_BY_LABEL, MANAGED_SELECTOR, plural
from hone.core.observed import Object

KINDS: dict[str, AnyKind] = {kind.name: kind for kind in (FINETUNEJOB, MODELDEPLOYMENT)}
"""Every kind that the operator reconciles, by its name."""


@dataclass(frozen=True)
class Watched:
    """A kind of object that is watched.

    Attributes:
        api_version: such as `batch/v1`.
        kind: such as `Job`.
        selector: label selector that the server filters with; empty: all objects are seen.
        triggers: whether its events trigger a reconcile of the object's owner (`names.owner_of`).
        metadata_only: whether nothing but the metadata is asked for.
    """

    api_version: str
    kind: str
    selector: str = MANAGED_SELECTOR
    triggers: bool = True
    metadata_only: bool = False

    @property
    def plural(self) -> str:
        """Its plural in URLs."""
        return plural(self.kind)

    def sees(self, obj: Object) -> bool:
        """Whether the watch shows this object of its kind."""
        return not self.selector or (obj["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY


_POD = Watched("v1", "Pod")
"""Created by the children of our kinds, with our labels."""

WATCHED_CHILDREN: tuple[Watched, ...] = (
    _POD,
    *sorted(
        {
            Watched(
                child.api_version,
                child.kind,
                "" if child.foreign else MANAGED_SELECTOR,
                child.watched,
                child.metadata_only,
            )
            for kind in KINDS.values()
            for child in kind.children
            if child.indexed
        },
        key=lambda watched: (watched.api_version, watched.kind),
    ),
)
"""The objects that a reconcile reads in addition to the resources of our kinds."""

WATCHED: tuple[Watched, ...] = (
    *(Watched(kind.api_version, kind.name, selector="") for kind in KINDS.values()),
    *WATCHED_CHILDREN,
)
"""Everything that is watched."""


def is_watched(obj: Object) -> bool:
    """Whether a watch shows the object, and will show its deletion."""
    kinds = (watched for watched in WATCHED if (watched.api_version, watched.kind) == (obj["apiVersion"], obj["kind"]))
    return any(watched.sees(obj) for watched in kinds)
