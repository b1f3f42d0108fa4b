"""Time the operator's decisions on the golden cases.

One decision is everything between what was read from the API server and the Plan.
"""

import statistics
import time
from typing import Any

from hone.core.kinds import KINDS
from hone.core.settings import Settings
from hone.core.times import parse
from tests.golden.cases import Inputs, inputs, observe


def decision_seconds(case: Inputs, repeats: int) -> list[float]:
    """How long each of `repeats` decisions on a golden case took."""
    resource, cluster = case
    kind, settings, now = KINDS[resource["kind"]], Settings(), parse(cluster["now"])
    observed = observe(kind.subject(resource, settings), cluster)
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        kind.reconcile(kind.subject(resource, settings), observed, now)
        took.append(time.perf_counter() - began)
    return took


def bench(repeats: int) -> list[dict[str, Any]]:
    """Time all cases: median, 99th percentile and the slowest case of each kind."""
    cases, rows = dict(inputs()), []
    for kind in sorted({name.split("/")[0] for name in cases}):
        by_case = {name: decision_seconds(case, repeats) for name, case in cases.items() if name.startswith(f"{kind}/")}
        every = [seconds for took in by_case.values() for seconds in took]
        slowest = max(by_case, key=lambda case: statistics.median(by_case[case]))
        rows.append(
            {
                "kind": kind,
                "cases": len(by_case),
                "medianMs": statistics.median(every) * 1e3,
                "p99Ms": statistics.quantiles(every, n=100)[98] * 1e3,
                "slowestCase": slowest.split("/")[1],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line per kind."""
    lines = [f"{'kind':18}{'cases':>6}{'median ms':>11}{'p99 ms':>9}  slowest case"]
    lines += [
        f"{row['kind']:18}{row['cases']:6}{row['medianMs']:11.2f}{row['p99Ms']:9.2f}  {row['slowestCase']}"
        for row in rows
    ]
    return "\n".join(lines)
