"""Progress messages in the log, a few seconds apart."""

import logging
import time

_REPORT_SECONDS = 5.0

log = logging.getLogger(__name__)


class Ticker:
    """Logs at most one message every few seconds, and none if the work ends sooner."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._next = self._begin + _REPORT_SECONDS

    def tick(self, message: str, rows: int, total: int | None = None, **fields: object) -> None:
        """Log the message if the last one is long enough ago.

        Args:
            message: what is done.
            rows: how many rows are done.
            total: of how many; None: not known.
            fields: what else the message has.
        """
        now = time.monotonic()
        if now < self._next:
            return
        rate = rows / (now - self._begin)
        known = {"totalRows": total, "secondsLeft": round((total - rows) / rate)} if total and rate else {}
        log.info(message, extra={"rows": rows, "rowsPerSecond": round(rate), **known, **fields})
        self._next = now + _REPORT_SECONDS
