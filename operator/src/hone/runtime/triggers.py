"""Maps a watch event to the keys that it affects, and caches ended pods; makes no decisions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hone.core.kind import AnyKind
from hone.core.names import owner_of
from hone.core.observed import Object, Ref
from hone.runtime.controller import Key
from hone.runtime.evidence import EvidenceCache


class _Followed(NamedTuple):
    namespace: str
    ref: Ref


class Triggers:
    """Adds to the queues what an event affects: the resource itself, its owner, and resources that wait for it.

    Args:
        kinds: the kinds that are reconciled, by name.
        add: adds a key to the queue of a kind.
        evidence: caches the pods that end.
    """

    def __init__(self, kinds: Mapping[str, AnyKind], add: Callable[[str, Key], None], evidence: EvidenceCache) -> None:
        self._kinds, self._add, self._evidence = kinds, add, evidence
        self._follows: dict[tuple[str, Key], tuple[_Followed, ...]] = {}
        self._followers: dict[_Followed, set[tuple[str, Key]]] = {}

    def saw(self, event_type: str | None, obj: Object) -> None:
        """Handle one watch event.

        Args:
            event_type: ADDED, MODIFIED or DELETED; None for an object of the first listing.
            obj: the object, with apiVersion and kind.
        """
        if obj["kind"] == "Pod":
            self._evidence.saw(event_type, obj)
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if (kind := self._kinds.get(obj["kind"])) and kind.api_version == obj["apiVersion"]:
            self._index(kind, Key(namespace, name), obj if event_type != "DELETED" else None)
            self._add(kind.name, Key(namespace, name))
            for follower, key in self._followers.get(_Followed(namespace, _ref(obj)), ()):
                self._add(follower, key)
        elif (owner := owner_of(obj)) and owner[0] in self._kinds:
            self._add(owner[0], Key(namespace, owner[1]))

    def _index(self, kind: AnyKind, key: Key, resource: Object | None) -> None:
        """Remember what the resource follows; None: it is gone and follows nothing."""
        identity = (kind.name, key)
        for followed in self._follows.pop(identity, ()):
            self._followers[followed].discard(identity)
            if not self._followers[followed]:
                del self._followers[followed]
        if resource is None:
            return
        refs = tuple(_Followed(key.namespace, ref) for ref in kind.follows(resource))
        if refs:
            self._follows[identity] = refs
        for followed in refs:
            self._followers.setdefault(followed, set()).add(identity)


def _ref(obj: Object) -> Ref:
    return Ref(obj["apiVersion"], obj["kind"], obj["metadata"]["name"])
