"""Takes in what the watches bring: into the index, and as the keys that it affects; makes no decisions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hone.core.kind import AnyKind
from hone.core.names import owner_of
from hone.core.observed import Object, Ref
from hone.runtime.controller import Key
from hone.runtime.evidence import EvidenceCache
from hone.runtime.index import Change, Index


class _Followed(NamedTuple):
    namespace: str
    ref: Ref


class Triggers:
    """Adds to the queues what an event affects: the resource itself, its owner, and resources that wait for it.

    Args:
        kinds: the kinds that are reconciled, by name.
        add: adds a key to the queue of a kind; the last argument is whether only a listing names it.
        index: takes in every object.
        evidence: takes in the pods that are gone.
        silent: kinds of children whose changes trigger nothing.
    """

    def __init__(
        self,
        kinds: Mapping[str, AnyKind],
        add: Callable[[str, Key, bool], None],
        index: Index,
        evidence: EvidenceCache,
        silent: frozenset[str] = frozenset(),
    ) -> None:
        self._kinds, self._add, self._index, self._evidence = kinds, add, index, evidence
        self._silent = silent
        self._follows: dict[tuple[str, Key], tuple[_Followed, ...]] = {}
        self._followers: dict[_Followed, set[tuple[str, Key]]] = {}

    def saw(self, event_type: str | None, obj: Object) -> None:
        """Handle one watch event.

        Args:
            event_type: ADDED, MODIFIED or DELETED; None for an object of a listing.
            obj: the object, trimmed, with apiVersion and kind.
        """
        if event_type == "DELETED":
            self._index.remove(obj)
            if obj["kind"] == "Pod":
                self._evidence.saw_deleted(obj)
            self._wake(obj, gone=True)
            return
        change = self._index.put(obj)
        # Our own status writes trigger one more reconcile; a child that is as we wrote it, or read it, triggers none.
        if change == Change.CHANGED or (change == Change.SAME and (event_type is None or self._kind(obj))):
            self._wake(obj, gone=False, listed=event_type is None)

    def vanished(self, obj: Object) -> None:
        """Handle an object that a new listing lacks: its deletion was missed."""
        if obj["kind"] == "Pod":
            self._evidence.saw_vanish(obj)
        self._wake(obj, gone=True)

    def _wake(self, obj: Object, gone: bool, listed: bool = False) -> None:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if kind := self._kind(obj):
            self._follow(kind, Key(namespace, name), None if gone else obj)
            self._add(kind.name, Key(namespace, name), listed)
            for follower, key in self._followers.get(_Followed(namespace, _ref(obj)), ()):
                self._add(follower, key, listed)
        elif obj["kind"] not in self._silent and (owner := owner_of(obj)) and owner[0] in self._kinds:
            self._add(owner[0], Key(namespace, owner[1]), listed)

    def _kind(self, obj: Object) -> AnyKind | None:
        """The kind of a resource of ours; None for a child."""
        kind = self._kinds.get(obj["kind"])
        return kind if kind and kind.api_version == obj["apiVersion"] else None

    def _follow(self, kind: AnyKind, key: Key, resource: Object | None) -> None:
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
