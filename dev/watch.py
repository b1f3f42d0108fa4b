"""What `make demo` shows of a FineTuneJob: a progress bar while it runs, then its plan and its scores."""

import sys
import time
from collections.abc import Iterator
from typing import TextIO

from dev.kube import Kube, KubeError, Object, is_true

BAR = 28
POLL_SECONDS = 1.0
# Fields of the plan that are worth a line, in this order.
PLAN_FIELDS = (
    "totalSteps",
    "epochs",
    "learningRate",
    "globalBatchSize",
    "microBatchSize",
    "sequenceLength",
    "loraRank",
    "loraDropout",
    "zeroStage",
    "precision",
    "checkpointEverySteps",
    "checkpointEveryMinutes",
)


def progress_line(job: Object) -> str:
    """Phase, and while it trains a bar with step, loss and time left."""
    status = job.get("status") or {}
    phase = status.get("phase") or "Pending"
    progress = status.get("progress") or {}
    if phase != "Training" or not progress:
        return phase
    percent = progress.get("percent", 0)
    filled = BAR * percent // 100
    parts = [f"{phase} [{'#' * filled}{'.' * (BAR - filled)}] {percent:3} %"]
    parts.append(f"step {progress.get('step', 0)}/{progress.get('totalSteps', 0)}")
    if progress.get("loss"):
        parts.append(f"loss {progress['loss']}")
    if progress.get("eta"):
        parts.append(f"{progress['eta']} left")
    return "  ".join(parts)


class Display:
    """One line that is written over on a terminal; elsewhere a new line for each relevant change."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._live, self._told = out, out.isatty(), ""

    def show(self, line: str, worth: str) -> None:
        """Show `line`; without a terminal, only when `worth` has changed."""
        if self._live:
            # A new phase gets a line of its own; the one before stays as it last was.
            fresh = "\n" if self._told and worth.split()[0] != self._told.split()[0] else "\r\x1b[2K"
            self._out.write(f"{fresh}{line}")
        elif worth != self._told:
            self._out.write(f"{line}\n")
        self._told = worth
        self._out.flush()

    def end(self) -> None:
        """Leave the line as it is."""
        if self._live:
            self._out.write("\n")


def follow(kube: Kube, name: str, seconds: float, out: TextIO = sys.stdout) -> Object:
    """Show a job until it is Finished or Stalled, and return it.

    Raises:
        KubeError: it did not come to that within `seconds`.
    """
    display, deadline = Display(out), time.monotonic() + seconds
    began = time.monotonic()
    try:
        while True:
            job = kube.get("finetunejob", name)
            if job is None:
                raise KubeError(f"FineTuneJob {name} has been deleted")
            line = progress_line(job)
            tens = ((job.get("status") or {}).get("progress") or {}).get("percent", 0) // 10
            display.show(f"  {int(time.monotonic() - began):4} s  {line}", f"{line.split()[0]} {tens}")
            if is_true(job, "Finished") or is_true(job, "Stalled"):
                return job
            if time.monotonic() > deadline:
                raise KubeError(f"FineTuneJob {name} did not end within {seconds:.0f} s; last: {line}")
            time.sleep(POLL_SECONDS)
    finally:
        display.end()


def plan_lines(job: Object) -> Iterator[str]:
    """The plan's main choices, each with its reason, and its warnings."""
    plan = job["status"].get("plan") or {}
    reasons = plan.get("reasons") or {}
    yield "\nThe plan that Hone chose (kubectl get ftj -o yaml: status.plan):"
    for field in PLAN_FIELDS:
        if field in plan:
            value = f"{plan[field]:.4g}" if isinstance(plan[field], float) else plan[field]
            yield f"  {field:22}{value!s:>10}  {reasons.get(field, '')}".rstrip()
    for warning in plan.get("warnings") or []:
        yield f"  warning: {warning}"


def score_lines(job: Object) -> Iterator[str]:
    """Base and tuned model's scores on rows that neither has seen, with their 95 % intervals."""
    yield "\nScores on the test rows, which training never saw, with 95 % intervals:"
    for score in (job["status"].get("evaluation") or {}).get("scores", []):
        better = "higher is better" if score["higherIsBetter"] else "lower is better"
        yield f"  {score['metric']} ({better}, {score['samples']} rows)"
        for key, label in (("base", "base model"), ("tuned", "tuned model"), ("improvement", "improvement")):
            figure = score[key]
            yield f"    {label:12}{figure['value']:8.3f}   [{figure['lower']:.3f}, {figure['upper']:.3f}]"
