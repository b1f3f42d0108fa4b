"""How far prepare is with downloads and rows: written by the step, read by its parent, which answers /progress."""

import mmap
import os
import struct
import time

from hone.contract.progress import CHECKING_ROWS, DOWNLOADING, TOKENIZING, Progress
from hone.contract.runconfig import POD_UID_ENV

STARTING = "Starting"
STAGES = (STARTING, CHECKING_ROWS, TOKENIZING, DOWNLOADING)


class RowsDone:
    """Figures in memory that a process shares with those that it forks. One of them writes."""

    _FIELDS = struct.Struct("IQQdd")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, stage: str, rows: int, total: int | None, rate: float) -> None:
        """Replace the figures.

        Args:
            stage: one of `STAGES`.
            rows: how many rows are done in this stage; of DOWNLOADING, bytes.
            total: of how many; None: not known.
            rate: rows or bytes per second.
        """
        values = self._FIELDS.pack(STAGES.index(stage), rows, total or 0, rate, time.time())
        self._memory[: self._FIELDS.size] = values

    def end(self) -> None:
        """No stage is at work, so that nobody shows the figures of the last one while, say, a model is downloaded."""
        self.write(STARTING, 0, None, 0.0)

    def progress(self) -> Progress:
        """The figures as a pod reports them."""
        stage, rows, total, rate, moment = self._FIELDS.unpack_from(self._memory)
        pod = os.environ.get(POD_UID_ENV, "")
        if not stage:
            return Progress(pod_uid=pod, observed_time=moment)
        if STAGES[min(stage, len(STAGES) - 1)] == DOWNLOADING:
            return Progress(
                pod_uid=pod,
                stage=DOWNLOADING,
                downloaded_bytes=rows,
                total_bytes=total or None,
                bytes_per_second=rate or None,
                observed_time=moment,
            )
        return Progress(
            pod_uid=pod,
            stage=STAGES[min(stage, len(STAGES) - 1)],
            rows=rows,
            total_rows=total or None,
            rows_per_second=rate or None,
            observed_time=moment,
        )


rows_done = RowsDone()
"""Those of this process and its children."""
