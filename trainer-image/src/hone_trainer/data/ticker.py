"""Progress with the rows: messages in the log, a few seconds apart, and figures that the operator asks for."""

import logging
import time

from hone_trainer.protocol.rows_done import rows_done

_REPORT_SECONDS, _WRITE_SECONDS = 5.0, 1.0

log = logging.getLogger(__name__)


class Ticker:
    """Reports at most every second, and logs at most every few seconds; neither if the work ends sooner.

    Args:
        stage: the stage that it reports.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._begin = time.monotonic()
        self._next, self._write = self._begin + _REPORT_SECONDS, self._begin + _WRITE_SECONDS
        self._first = 0

    def skip(self, rows: int) -> None:
        """So many rows are done already, and are not part of the rate."""
        self._first = rows

    def end(self) -> None:
        """The stage is over."""
        rows_done.end()

    def tick(self, message: str, rows: int, total: int | None = None, **fields: object) -> None:
        """Report the rows, and log the message if the last one is long enough ago.

        Args:
            message: what is done.
            rows: how many rows are done.
            total: of how many; None: not known.
            fields: what else the message has.
        """
        now = time.monotonic()
        if now < self._write:
            return
        rate = (rows - self._first) / (now - self._begin)
        rows_done.write(self._stage, rows, total, rate)
        self._write = now + _WRITE_SECONDS
        if now < self._next:
            return
        known = {"totalRows": total, "secondsLeft": round((total - rows) / rate)} if total and rate else {}
        log.info(message, extra={"rows": rows, "rowsPerSecond": round(rate), **known, **fields})
        self._next = now + _REPORT_SECONDS
