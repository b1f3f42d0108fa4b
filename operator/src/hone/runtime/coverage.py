"""Which watches are established, and which namespaces cannot be watched because the API server refuses it.

A namespace of `watch_namespaces` may be deleted, and with it the Role that lets the operator watch there. That is an
ordinary event: the others are served, and it is asked for again and again until it is there.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping

FORBIDDEN = 403
log = logging.getLogger(__name__)


class Coverage:
    """What is watched. A namespace is away while the API server refuses each of its watches.

    Args:
        watches: the namespace of each watch, by its URL path; empty: all namespaces.

    Attributes:
        away: the namespaces that are away.
    """

    def __init__(self, watches: Mapping[str, str]) -> None:
        self._watches = dict(watches)
        self._of: dict[str, set[str]] = defaultdict(set)
        for path, namespace in watches.items():
            self._of[namespace].add(path)
        self._listed: set[str] = set()
        self._established: set[str] = set()
        self._refused: set[str] = set()
        self.away: set[str] = set()

    @property
    def namespaces(self) -> list[str]:
        """The namespaces that are not away; an empty name: all."""
        return [namespace for namespace in self._of if namespace not in self.away]

    @property
    def all_listed(self) -> bool:
        """Whether every kind was listed once, in each namespace that is not away."""
        return self._all(self._listed)

    @property
    def all_established(self) -> bool:
        """Whether every kind is watched, in each namespace that is not away."""
        return self._all(self._established)

    def listed(self, path: str) -> None:
        """A listing has ended."""
        self._listed.add(path)

    def answered(self, path: str, status: int, is_watch: bool) -> None:
        """The API server has answered a listing or a watch with a status."""
        if path not in self._watches:
            return
        if status == FORBIDDEN:
            if path not in self._refused:
                log.warning("the API server refuses a watch, which is tried again: %s", path)
            self._refused.add(path)
        elif status < 300:
            self._refused.discard(path)
            if is_watch:
                self._established.add(path)
        self._update(self._watches[path])

    def _all(self, paths: set[str]) -> bool:
        """Whether `paths` has all of at least one namespace, and of all that are not away."""
        return bool(self.namespaces) and all(self._of[namespace] <= paths for namespace in self.namespaces)

    def _update(self, namespace: str) -> None:
        is_away = bool(namespace) and self._of[namespace] <= self._refused
        if is_away == (namespace in self.away):
            return
        extra = {"namespace": namespace}
        if is_away:
            self.away.add(namespace)
            self._established -= self._of[namespace]
            log.warning("not watched: the namespace is gone, or the operator has no rights in it", extra=extra)
        else:
            self.away.discard(namespace)
            log.info("the namespace is watched again", extra=extra)
