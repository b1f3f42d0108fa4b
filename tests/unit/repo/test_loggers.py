"""A thread that makes loggers ends no test: pytest's own passage through them is not disturbed."""

import itertools
import logging
from collections.abc import Iterator

import pytest
from _pytest.logging import catching_logs


class Disturbing(logging.Logger):
    """Whenever it is asked whether it propagates, another logger is made, as if by a thread."""

    numbers = itertools.count()

    def _propagate(self) -> bool:
        logging.getLogger(f"{__name__}.made.{next(self.numbers)}")
        return True

    propagate = property(_propagate, lambda self, value: None)  # type: ignore[assignment]


@pytest.fixture
def disturbing() -> Iterator[logging.Logger]:
    loggers = logging.Logger.manager.loggerDict
    before = dict(loggers)
    loggers[f"{__name__}.disturbing"] = logger = Disturbing("disturbing")
    yield logger
    for name in loggers.keys() - before.keys():
        del loggers[name]


def test_loggers_may_be_made_while_pytest_starts_to_catch_logs(disturbing: logging.Logger) -> None:
    count = len(logging.Logger.manager.loggerDict)
    with catching_logs(logging.NullHandler()):
        pass
    assert len(logging.Logger.manager.loggerDict) > count, "one was made meanwhile"
