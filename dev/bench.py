"""Time the operator's decisions: `python3 -m dev.bench`, from the project's environment, on the golden cases.

One decision is everything between what was read from the API server and the Plan. Prints a line per kind.
"""

import argparse
import statistics
import time

import yaml

from hone.core.kinds import KINDS
from hone.core.settings import Settings
from hone.core.times import parse
from tests.golden.test_golden import CASES, HERE, observe

REPEATS = 200


def decision_seconds(case: str, repeats: int) -> list[float]:
    """How long each of `repeats` decisions on a golden case took."""
    resource = yaml.safe_load((HERE / case / "cr.yaml").read_text())
    seen = yaml.safe_load((HERE / case / "observed.yaml").read_text())
    observed, now, settings = observe(resource, seen), parse(seen["now"]), Settings()
    reconcile = KINDS[resource["kind"]].reconcile
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        reconcile(resource, observed, now, settings)
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    """Time all cases and print median, 99th percentile and the slowest case of each kind."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"decisions per case (default: {REPEATS})")
    repeats = parser.parse_args().repeats
    print(f"{'kind':18}{'cases':>6}{'median ms':>11}{'p99 ms':>9}  slowest case")
    for kind in sorted({case.split("/")[0] for case in CASES}):
        by_case = {case: decision_seconds(case, repeats) for case in CASES if case.startswith(f"{kind}/")}
        every = [seconds for took in by_case.values() for seconds in took]
        slowest = max(by_case, key=lambda case: statistics.median(by_case[case]))
        p99 = statistics.quantiles(every, n=100)[98]
        median = statistics.median(every)
        print(f"{kind:18}{len(by_case):6}{median * 1e3:11.2f}{p99 * 1e3:9.2f}  {slowest.split('/')[1]}")


if __name__ == "__main__":
    main()
