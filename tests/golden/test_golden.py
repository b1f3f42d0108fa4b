"""Golden cases: inputs -> Plan, compared in full. They read as the specification; cases.py says how they are written.

Each case says in its first line what it is; the folders hold the whole ones, to be read first. After an intended
change: `pytest tests/golden --update-golden`, then read the diff.
"""

import pytest

from tests.golden.cases import expected, inputs, parts, plan_of, record
from tests.golden.layout import dump

CASES = dict(inputs())


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str, update_golden: bool) -> None:
    resource, cluster = CASES[case]
    plan = parts(resource.get("status") or {}, plan_of(resource, cluster))
    # As text, since the order of keys counts. Whole cases come first, so that the others compare with their new Plans.
    if update_golden and dump(expected(case)) != dump(plan):
        record(case, plan)
    assert dump(expected(case)) == dump(plan)


def test_each_number_is_used_once() -> None:
    numbers = [case.partition("-")[0] for case in CASES]
    assert len(numbers) == len(set(numbers))


def test_there_are_cases() -> None:
    assert len(CASES) >= 60
