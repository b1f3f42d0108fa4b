"""`--update-golden` replaces the recorded Plans by what the core plans now; read the diff before a commit."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="record what the core plans now in every golden case that differs"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # Unknown where pytest was not started with this folder as an argument.
    return bool(request.config.getoption("--update-golden", default=False))
