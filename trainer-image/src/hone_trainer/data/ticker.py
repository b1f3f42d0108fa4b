"""Progress messages in the log, a few seconds apart."""

import logging
import time

_REPORT_SECONDS = 5.0

log = logging.getLogger(__name__)


class Ticker:
    """Logs at most one message every few seconds, and none if the work ends sooner."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _REPORT_SECONDS

    def tick(self, message: str, **fields: object) -> None:
        """Log the message if the last one is long enough ago."""
        if time.monotonic() >= self._next:
            log.info(message, extra=fields)
            self._next = time.monotonic() + _REPORT_SECONDS
