"""How fast a volume takes what is written to it."""

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20
MOST_SECONDS = 2.0
MOST_OF_FREE = 0.05
"""Share of the free space that is written at most."""
_CHUNK_BYTES = 8 << 20


def write_speed(directory: Path) -> float | None:
    """Bytes per second, written in sequence and flushed to the disk; None where too little could be written.

    Writes at most `MOST_BYTES` or for about `MOST_SECONDS`, whichever ends first, to a file without a name: nothing of
    it stays, whatever ends this process.
    """
    most = min(MOST_BYTES, int(shutil.disk_usage(directory).free * MOST_OF_FREE))
    chunk = os.urandom(min(_CHUNK_BYTES, most))  # a volume that compresses would swallow zeros
    written, began = 0, time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            while chunk and written + len(chunk) <= most and time.monotonic() - began < MOST_SECONDS:
                written += file.write(chunk)
                os.fdatasync(file.fileno())
            seconds = time.monotonic() - began
    except OSError as error:  # a quota that statvfs does not know of
        log.warning("The volume's speed could not be measured", extra={"reason": str(error)})
        return None
    return written / seconds if written else None
