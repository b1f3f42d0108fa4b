"""Structured logs: one JSON object per line on standard error."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISE = re.compile(r"OS signals are ignored|Request attempt .* failed; will retry: .*APIForbiddenError")
"""What kopf repeats although it is no news: it runs in a thread of its own on purpose, and signals are handled in
`hone.runtime.main`; a refused watch is logged once, in `hone.runtime.coverage`."""


class JsonFormatter(logging.Formatter):
    """A line with ts, level, logger, msg, and the fields of `extra` that are text or numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and isinstance(value, str | int | float | bool):
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str) -> None:
    """Send all logs through the formatter; libraries log only warnings unless the level is debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(lambda record: not _NOISE.match(record.getMessage()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for name in ("kopf", "asyncio", "aiohttp", "kubernetes"):
            logging.getLogger(name).setLevel(logging.WARNING)
