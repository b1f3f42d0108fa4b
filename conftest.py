"""For all tests: pytest may look through the loggers while another thread makes one."""

import logging
from typing import Any


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
