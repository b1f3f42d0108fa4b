"""For all tests: workers share the cores, and pytest may look through the loggers while another thread makes one."""

import logging
import os
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker for each core. With more threads, those that wait for each other keep the cores from those that
    # compute: trainings took up to eight times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class _Loggers(dict[str, Any]):
    """The loggers by name. What goes through them goes through a copy."""

    def values(self) -> Any:
        return list(super().values())


def pytest_configure() -> None:
    """Let pytest go through a copy of the table of loggers.

    At each setup, call and teardown it goes through the table itself, without logging's lock. kopf's thread makes a
    logger for each of its activities, as others do by an import, and a test could end with "dictionary changed size
    during iteration".
    """
    manager = logging.Logger.manager
    manager.loggerDict = _Loggers(manager.loggerDict)
