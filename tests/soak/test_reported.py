"""Half a million reports of pods that lie, in slices: no exception, a valid status, nothing hidden in it."""

from random import Random

import pytest

from tests.unit.core.test_reported import SEEDS, report

SLICES = 20
REPORTS = 25_000
"""Reports of a slice."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(SLICES))
def test_no_report_breaks_a_status(part: int) -> None:
    first = SEEDS + part * REPORTS
    for seed in range(first, first + REPORTS):
        try:
            report(Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
