"""What the watches and our own writes have shown, by kind, namespace and name: reconciles read from it.

An object is never replaced by an older one, so a read after our own write is never older than that write: the write's
answer is put into the index at once. An object that was deleted never comes back under its uid.
"""

import struct
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
    """What is kept of an object, as one string of bytes: a tuple of these would take twice as much memory.

    Attributes:
        version: its resourceVersion.
        uid: its uid.
        data: the rest, packed.
    """

    version: int
    uid: str
    data: bytes

    def to_bytes(self) -> bytes:
        """The entry as it is kept."""
        uid = self.uid.encode()
        return _HEADER.pack(self.version, len(uid)) + uid + self.data


_HEADER = struct.Struct("<QB")


def _entry(record: bytes) -> _Entry:
    version, length = _HEADER.unpack_from(record)
    end = _HEADER.size + length
    return _Entry(version, record[_HEADER.size : end].decode(), record[end:])


_Place = tuple[str, str]
"""Namespace and name."""


class Index:
    """Trimmed objects (`hone.core.trim`), packed. It holds whatever is put into it; it knows nothing of watches."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}  # by namespace and name
        self._pods: dict[_Place, set[str]] = {}  # names of pods by namespace and uid of the resource
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def put(self, obj: Object) -> Change:
        """Take in an object that was listed, or that a watch event or the answer to a write has shown."""
        meta = obj["metadata"]
        kind, place = (obj["apiVersion"], obj["kind"]), (sys.intern(meta["namespace"]), meta["name"])
        entry, old = _Entry(_version(meta), meta["uid"], pack(obj)), self._known(kind, place)
        if meta["uid"] in self._deleted or (old and entry.version < old.version):
            return Change.STALE
        is_same = old is not None and (old.uid, old.data) == (entry.uid, entry.data)
        if old and not is_same:
            self._unlink(kind, place, old)
        self._kinds.setdefault(kind, {}).setdefault(place[0], {})[place[1]] = entry.to_bytes()
        if kind == _POD and not is_same:
            self._pods.setdefault((place[0], _owner(obj)), set()).add(place[1])
        return Change.SAME if is_same else Change.CHANGED

    def remove(self, obj: Object) -> None:
        """An object was deleted, or is known to be gone; another one under its name stays."""
        meta = obj["metadata"]
        self._remove((obj["apiVersion"], obj["kind"]), (meta["namespace"], meta["name"]), meta["uid"])

    def get(self, namespace: str, ref: Ref) -> Object | None:
        """The newest known state of an object, or None."""
        kind, place = (ref.api_version, ref.kind), (namespace, ref.name)
        entry = self._known(kind, place)
        return None if entry is None else _object(kind, place, entry)

    def version(self, namespace: str, ref: Ref) -> tuple[str, int] | None:
        """Which state of an object is known: its uid and resourceVersion."""
        entry = self._known((ref.api_version, ref.kind), (namespace, ref.name))
        return None if entry is None else (entry.uid, entry.version)

    def absent(self, namespace: str, ref: Ref, known: tuple[str, int] | None) -> None:
        """The API server has no such object. What has become known since `known` was stays: it may be newer."""
        if known is not None and self.version(namespace, ref) == known:
            self._remove((ref.api_version, ref.kind), (namespace, ref.name), known[0])

    def pods(self, namespace: str, owner_uid: str) -> list[Object]:
        """The pods of a resource, by name."""
        names = sorted(self._pods.get((namespace, owner_uid), ()))
        live = self._kinds.get(_POD, {}).get(namespace, {})
        return [_object(_POD, (namespace, name), _entry(live[name])) for name in names]

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
            for name, entry in ((name, _entry(record)) for name, record in namespaces.get(each, {}).items())
            if entry.uid not in uids and entry.version <= int(version or 0)
        ]
        for place, entry in gone:
            self._remove((api_version, kind), place, entry.uid)
            yield _object((api_version, kind), place, entry)

    def __len__(self) -> int:
        return sum(len(names) for namespaces in self._kinds.values() for names in namespaces.values())

    def _known(self, kind: tuple[str, str], place: _Place) -> _Entry | None:
        record = self._kinds.get(kind, {}).get(place[0], {}).get(place[1])
        return None if record is None else _entry(record)

    def _remove(self, kind: tuple[str, str], place: _Place, uid: str) -> None:
        self._deleted[uid] = None
        while len(self._deleted) > MAX_DELETED:
            self._deleted.popitem(last=False)
        entry = self._known(kind, place)
        if entry is not None and entry.uid == uid:
            names = self._kinds[kind][place[0]]
            del names[place[1]]
            if not names:
                del self._kinds[kind][place[0]]
            self._unlink(kind, place, entry)

    def _unlink(self, kind: tuple[str, str], place: _Place, entry: _Entry) -> None:
        """Forget that a pod belongs to its resource."""
        if kind != _POD:
            return
        group = (place[0], _owner(_object(kind, place, entry)))
        if group in self._pods:
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


def _object(kind: tuple[str, str], place: _Place, entry: _Entry) -> Object:
    obj = unpack(entry.data)
    named = {"name": place[1], "namespace": place[0], "uid": entry.uid, **obj.pop("metadata")}
    if entry.version:
        named["resourceVersion"] = str(entry.version)
    return {"apiVersion": kind[0], "kind": kind[1], "metadata": named, **obj}
