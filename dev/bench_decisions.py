"""Time the operator's decisions on the golden cases.

One decision is everything between what was read from the API server and the Plan.
"""

import statistics
import time
from typing import Any

import yaml

from hone.core.kinds import KINDS
from hone.core.settings import Settings
from hone.core.times import parse
from tests.golden.test_golden import CASES, HERE, observe


def decision_seconds(case: str, repeats: int) -> list[float]:
    """How long each of `repeats` decisions on a golden case took."""
    resource = yaml.safe_load((HERE / case / "cr.yaml").read_text())
    seen = yaml.safe_load((HERE / case / "observed.yaml").read_text())
    kind, settings = KINDS[resource["kind"]], Settings()
    observed, now = observe(kind.subject(resource, settings), seen), parse(seen["now"])
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        kind.reconcile(kind.subject(resource, settings), observed, now)
        took.append(time.perf_counter() - began)
    return took


def bench(repeats: int) -> list[dict[str, Any]]:
    """Time all cases: median, 99th percentile and the slowest case of each kind."""
    found = []
    for kind in sorted({case.split("/")[0] for case in CASES}):
        by_case = {case: decision_seconds(case, repeats) for case in CASES if case.startswith(f"{kind}/")}
        every = [seconds for took in by_case.values() for seconds in took]
        slowest = max(by_case, key=lambda case: statistics.median(by_case[case]))
        found.append(
            {
                "kind": kind,
                "cases": len(by_case),
                "medianMs": statistics.median(every) * 1e3,
                "p99Ms": statistics.quantiles(every, n=100)[98] * 1e3,
                "slowestCase": slowest.split("/")[1],
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """A line per kind."""
    lines = [f"{'kind':18}{'cases':>6}{'median ms':>11}{'p99 ms':>9}  slowest case"]
    lines += [
        f"{row['kind']:18}{row['cases']:6}{row['medianMs']:11.2f}{row['p99Ms']:9.2f}  {row['slowestCase']}"
        for row in found
    ]
    return "\n".join(lines)
