"""Structured logs: one JSON object per line on stdout, with time, level, msg and fields of the message's own."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

from hone_trainer.protocol import secrets

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_NETWORK = ("boto3", "botocore", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what was passed as `extra={...}` becomes keys next to `msg`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, without line breaks."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _OWN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return secrets.without(json.dumps(line, ensure_ascii=False, default=str), secrets.withheld)


def setup_logging(level: int = logging.INFO) -> None:
    """Send every logger of this process to stdout as JSON lines, those of libraries included."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Their logs repeat URLs, which may be signed.
    for name in _NETWORK:
        logging.getLogger(name).setLevel(logging.WARNING)


def quiet_libraries() -> None:
    """Send transformers' own log the same way, without progress bars and notes to those who write code with it."""
    from datasets import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)
