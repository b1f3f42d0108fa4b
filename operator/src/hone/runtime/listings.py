"""Takes in listings page by page; what the index has and a whole listing lacks was deleted while nobody watched."""

from collections.abc import Sequence
from typing import NamedTuple

from hone.core.observed import Object
from hone.runtime.index import Index
from hone.runtime.triggers import Triggers


class Page(NamedTuple):
    """One page of a listing.

    Attributes:
        api_version: of the listed kind.
        kind: the kind.
        namespace: where; empty: everywhere.
        objects: the objects, trimmed.
        version: the listing's resourceVersion.
        first: whether a listing begins with this page.
        last: whether it ends with it.
    """

    api_version: str
    kind: str
    namespace: str
    objects: Sequence[Object]
    version: str
    first: bool
    last: bool


class Listings:
    """Collects the pages of each listing.

    Args:
        index: loses what a listing lacks.
        triggers: sees every object, and what has vanished.
    """

    def __init__(self, index: Index, triggers: Triggers) -> None:
        self._index, self._triggers = index, triggers
        self._uids: dict[tuple[str, str, str], set[str]] = {}

    def page(self, page: Page) -> None:
        """Take in a page."""
        which = (page.api_version, page.kind, page.namespace)
        if page.first:
            self._uids[which] = set()
        uids = self._uids.setdefault(which, set())
        for obj in page.objects:
            uids.add(obj["metadata"]["uid"])
            self._triggers.saw(None, obj)
        if page.last:
            del self._uids[which]
            for obj in [*self._index.vanished(page.api_version, page.kind, page.namespace, uids, page.version)]:
                self._triggers.vanished(obj)
