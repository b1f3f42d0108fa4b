"""SECURITY.md names tests that exist for each promise."""

import re

import pytest

from tests.docs.support import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
(PROMISES,) = re.findall(r"^## What Hone promises\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
ROWS = [line.strip("| ").split(" | ") for line in PROMISES.splitlines() if line.startswith("| ")][1:]


def test_there_are_promises() -> None:
    assert len(ROWS) > 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_each_promise_names_how_it_is_kept_and_tests_that_exist(row: list[str]) -> None:
    _, how, tests = row
    assert how
    paths = re.findall(r"`([^`]+)`", tests)
    assert paths
    for path in paths:
        assert re.search(r"^(async )?def test_", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), path
