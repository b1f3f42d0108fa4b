"""`--update-golden` writes what the core plans now over the plans that stand there; read the diff before a commit."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write plan.yaml of every golden case anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # Unknown where pytest was not started with this folder as an argument.
    return bool(request.config.getoption("--update-golden", default=False))
