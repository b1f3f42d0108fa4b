"""Progress on standard error: one line for each step, with the time it took, and a heartbeat while a long one runs."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 10.0
_began = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since this command began."""
    print(f"[{time.monotonic() - _began:6.1f}s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str, detail: Callable[[], str] | None = None, quiet: bool = False) -> Iterator[None]:
    """Announce `text`, say every ten seconds that it still runs (with `detail()`), and at the end how long it took."""
    if quiet:
        yield
        return
    started, done = time.monotonic(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            more = detail() if detail else ""
            say(f"  ... {text}: {time.monotonic() - started:.0f} s so far{', ' + more if more else ''}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    verdict = "failed after"
    try:
        yield
        verdict = "done in"
    finally:
        done.set()
        thread.join()
        say(f"{text}: {verdict} {time.monotonic() - started:.1f} s")


def wait_until(condition: Callable[[], object], what: str, seconds: float, interval: float = 0.1) -> None:
    """Poll `condition` until it is true.

    Raises TimeoutError, naming `what`, when it is still false after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s.")
        time.sleep(interval)
