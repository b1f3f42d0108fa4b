"""What the watches and our own writes have shown, by kind, namespace and name: reconciles read from it.

An object is never replaced by an older one, so a read after our own write is never older than that write: the write's
answer is put into the index at once. An object that was deleted never comes back under its uid.
"""

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from hone.core.names import UID_LABEL
from hone.core.observed import Object, Ref
from hone.runtime.packing import pack, unpack

MAX_DELETED = 4096
"""Uids of deleted objects that are remembered: events of such an object that arrive late are ignored."""


class Change(StrEnum):
    """What an object changed in the index."""

    STALE = "Stale"
    """Nothing: it is older than the one that is there, or has been deleted since."""
    SAME = "Same"
    """Only the resourceVersion."""
    CHANGED = "Changed"


class _Entry(NamedTuple):
    uid: str
    version: int
    data: bytes
    owner: str


_Place = tuple[str, str]
"""Namespace and name."""


class Index:
    """Trimmed objects (`hone.core.trim`), packed. It holds whatever is put into it; it knows nothing of watches."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[str, dict[str, _Entry]]] = {}  # by namespace and name
        self._pods: dict[_Place, set[str]] = {}  # names of pods by namespace and uid of the resource
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def put(self, obj: Object) -> Change:
        """Take in an object that was listed, or that a watch event or the answer to a write has shown."""
        meta = obj["metadata"]
        kind, place = (obj["apiVersion"], obj["kind"]), (sys.intern(meta["namespace"]), meta["name"])
        entry = _Entry(meta["uid"], _version(meta), pack(obj), _owner(obj) if kind == _POD else "")
        old = self._kinds.get(kind, {}).get(place[0], {}).get(place[1])
        if entry.uid in self._deleted or (old and entry.version < old.version):
            return Change.STALE
        if old and old.owner != entry.owner:
            self._unlink(kind, place, old)
        self._kinds.setdefault(kind, {}).setdefault(place[0], {})[place[1]] = entry
        if kind == _POD:
            self._pods.setdefault((place[0], entry.owner), set()).add(place[1])
        return Change.SAME if old and (old.uid, old.data) == (entry.uid, entry.data) else Change.CHANGED

    def remove(self, obj: Object) -> None:
        """An object was deleted, or is known to be gone; another one under its name stays."""
        meta = obj["metadata"]
        self._remove((obj["apiVersion"], obj["kind"]), (meta["namespace"], meta["name"]), meta["uid"])

    def get(self, namespace: str, ref: Ref) -> Object | None:
        """The newest known state of an object, or None."""
        entry = self._entry(namespace, ref)
        return None if entry is None else _object((ref.api_version, ref.kind), entry)

    def version(self, namespace: str, ref: Ref) -> tuple[str, int] | None:
        """Which state of an object is known: its uid and resourceVersion."""
        entry = self._entry(namespace, ref)
        return None if entry is None else (entry.uid, entry.version)

    def absent(self, namespace: str, ref: Ref, known: tuple[str, int] | None) -> None:
        """The API server has no such object. What has become known since `known` was stays: it may be newer."""
        if known is not None and self.version(namespace, ref) == known:
            self._remove((ref.api_version, ref.kind), (namespace, ref.name), known[0])

    def pods(self, namespace: str, owner_uid: str) -> list[Object]:
        """The pods of a resource, by name."""
        names = sorted(self._pods.get((namespace, owner_uid), ()))
        return [_object(_POD, self._kinds[_POD][namespace][name]) for name in names]

    def vanished(
        self, api_version: str, kind: str, namespace: str, uids: Collection[str], version: str
    ) -> Iterator[Object]:
        """Remove what a listing no longer has, and yield it: its deletion was missed.

        Args:
            api_version: of the kind.
            kind: what was listed.
            namespace: where; empty: everywhere.
            uids: what the listing has.
            version: the listing's resourceVersion; what is newer than that stays.
        """
        namespaces = self._kinds.get((api_version, kind), {})
        gone = [
            ((each, name), entry)
            for each in ([namespace] if namespace else [*namespaces])
            for name, entry in namespaces.get(each, {}).items()
            if entry.uid not in uids and entry.version <= int(version or 0)
        ]
        for place, entry in gone:
            self._remove((api_version, kind), place, entry.uid)
            yield _object((api_version, kind), entry)

    def __len__(self) -> int:
        return sum(len(names) for namespaces in self._kinds.values() for names in namespaces.values())

    def _entry(self, namespace: str, ref: Ref) -> _Entry | None:
        return self._kinds.get((ref.api_version, ref.kind), {}).get(namespace, {}).get(ref.name)

    def _remove(self, kind: tuple[str, str], place: _Place, uid: str) -> None:
        self._deleted[uid] = None
        while len(self._deleted) > MAX_DELETED:
            self._deleted.popitem(last=False)
        names = self._kinds.get(kind, {}).get(place[0], {})
        entry = names.get(place[1])
        if entry is not None and entry.uid == uid:
            del names[place[1]]
            if not names:
                del self._kinds[kind][place[0]]
            self._unlink(kind, place, entry)

    def _unlink(self, kind: tuple[str, str], place: _Place, entry: _Entry) -> None:
        """Forget that a pod belongs to its resource."""
        group = (place[0], entry.owner)
        if kind == _POD and group in self._pods:
            self._pods[group].discard(place[1])
            if not self._pods[group]:
                del self._pods[group]


_POD = ("v1", "Pod")


def _owner(obj: Object) -> str:
    return sys.intern(str((obj["metadata"].get("labels") or {}).get(UID_LABEL, "")))


def _version(metadata: dict[str, Any]) -> int:
    # All of one API server's versions are numbers of one sequence, so they can be compared (KEP-5504).
    text = str(metadata.get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def _object(kind: tuple[str, str], entry: _Entry) -> Object:
    obj = unpack(entry.data)
    if entry.version:
        obj["metadata"]["resourceVersion"] = str(entry.version)
    return {"apiVersion": kind[0], "kind": kind[1], **obj}
