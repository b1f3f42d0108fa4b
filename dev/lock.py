"""A lock between processes, of whatever clone: a second one waits for the first."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.say import step


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock of the file at `path`; `waiting` says for what this waits, where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"waiting for {waiting}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
