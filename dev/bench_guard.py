"""What the guard of a server adds to a request: `python3 -m dev.bench_guard [--requests N]`.

Starts the same small app twice in vLLM's environment, with the guard and without, and sends requests to both by turns,
over one connection each, so that both meet the same load of this machine. Prints p50 and p95 of each, and of the
differences.
"""

import argparse
import http.client
import statistics
import tempfile
import time
from pathlib import Path

REQUESTS, WARM_UP = 4000, 200
CLIENTS = 20
"""Keys that the server has, all of which each request is compared with."""
BODY = b'{"model": "support", "messages": [{"role": "user", "content": "' + b"x" * 2000 + b'"}]}'


def milliseconds(connection: http.client.HTTPConnection, key: str) -> float:
    """How long one chat request takes."""
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", BODY, {"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"answered {response.status}")
    return 1000 * (time.perf_counter() - began)


def measure(ports: tuple[int, int], key: str, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each request to two servers, asked by turns; the first of a pair changes."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
    figures: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + requests):
        for which in (0, 1) if number % 2 else (1, 0):
            took = milliseconds(connections[which], key)
            if number >= WARM_UP:
                figures[which].append(took)
    return figures


def percentiles(figures: list[float]) -> tuple[float, float]:
    """p50 and p95."""
    cuts = statistics.quantiles(figures, n=20)
    return cuts[9], cuts[18]


def main() -> None:
    """Run the command line."""
    from tests.integration.guards import mount, running
    from tests.ways_around_keys import ALICE

    parser = argparse.ArgumentParser(
        prog="python3 -m dev.bench_guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"to each server (default: {REQUESTS})")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        others = {f"client{number}": f"key-of-client-{number:020}" for number in range(1, CLIENTS)}
        mount(folder / "guarded/keys", alice=ALICE, **others)
        with running(folder / "guarded") as guarded, running(folder / "bare", guarded=False) as bare:
            bare_ms, guarded_ms = measure((bare.port, guarded.port), ALICE, arguments.requests)
    differences = [one - other for one, other in zip(guarded_ms, bare_ms, strict=True)]
    for name, figures in (("without", bare_ms), ("with", guarded_ms), ("difference of a pair", differences)):
        p50, p95 = percentiles(figures)
        print(f"{name:>20}  p50 {p50:7.3f} ms  p95 {p95:7.3f} ms")
    added = [one - other for one, other in zip(percentiles(guarded_ms), percentiles(bare_ms), strict=True)]
    print(f"{'added':>20}  p50 {added[0]:7.3f} ms  p95 {added[1]:7.3f} ms")


if __name__ == "__main__":
    main()
