"""When checkpoints are saved, how long that takes, and whether it suits the grace period."""

import math
from dataclasses import dataclass, field

from hone.contract.settings import Checkpoint

SECONDS_BETWEEN_FAILURES = 4 * 3600.0
"""Assumed mean time between failures of a gang. Hardware fails more seldom, but spot nodes are taken back several times
a day, and an interval that is too short costs less than lost work: the cost is flat around its optimum."""
STOP_SHARE = 0.5
"""Share of the grace period that a save may take: the step that is under way has to end first."""
_LONGEST_GRACE_SECONDS = 3600


@dataclass(frozen=True)
class Saves:
    """Checkpoints as the plan has them, with reasons by the plan's field names."""

    every_steps: int | None
    every_minutes: int | None
    min_seconds: float | None
    seconds: float | None
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def plan_saves(checkpoint: Checkpoint, total_steps: int, checkpoint_bytes: int, write_speed: float | None) -> Saves:
    """Choose how often a run saves itself.

    Args:
        checkpoint: what the user configured.
        total_steps: of the run.
        checkpoint_bytes: size of one checkpoint.
        write_speed: bytes per second that the workspace takes, None where it was not measured.
    """
    seconds = checkpoint_bytes / write_speed if write_speed else None
    reasons: dict[str, str] = {}
    if write_speed:
        size = _megabytes(checkpoint_bytes)
        reasons["checkpointSeconds"] = f"{size} at {_megabytes(write_speed)}/s, measured on the workspace."
    every_steps, every_minutes, min_seconds = checkpoint.every_steps, checkpoint.every_minutes, None
    if every_steps is not None:
        reasons["checkpointEverySteps"] = "Set in the spec."
    elif every_minutes is not None:
        reasons["checkpointEveryMinutes"] = "Set in the spec."
    else:
        every_steps, reasons["checkpointEverySteps"] = max(1, total_steps // 10), "Steps / 10."
        if seconds is not None:
            # J. W. Young, "A first order approximation to the optimum checkpoint interval", 1974.
            min_seconds = math.sqrt(2 * seconds * SECONDS_BETWEEN_FAILURES)
            reasons["checkpointMinSeconds"] = (
                f"√(2 × {_time(seconds)} to save × {_time(SECONDS_BETWEEN_FAILURES)} between failures)."
            )
    warnings = []
    if seconds is not None and seconds > STOP_SHARE * checkpoint.grace_period_seconds:
        warnings.append(_grace_warning(checkpoint.grace_period_seconds, seconds, reasons["checkpointSeconds"]))
    return Saves(every_steps, every_minutes, min_seconds, seconds, reasons, warnings)


def _grace_warning(grace: int, seconds: float, measured: str) -> str:
    enough = math.ceil(seconds / STOP_SHARE / 10) * 10
    remedy = (
        f"Set spec.checkpoint.gracePeriodSeconds to {enough}."
        if enough <= _LONGEST_GRACE_SECONDS
        else "Use a faster workspace, or LoRA."
    )
    return (
        f"A checkpoint takes {_time(seconds)} to save ({measured.rstrip('.')}), but an evicted pod has {grace} s to "
        f"finish its step and save: it may lose the steps since the last checkpoint. {remedy}"
    )


def _megabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds:.3g} s"


def plan_evaluations(rows: int, total: int, *, generates: bool) -> tuple[int | None, str]:
    """Steps between evaluations on the validation rows, or None, and why.

    Args:
        rows: validation rows.
        total: steps of the run.
        generates: whether the model generates what it learns from.
    """
    if generates:
        why = "None: every step reports the reward or loss of new answers."
        return None, f"{why}{' The validation rows are not used.' if rows else ''}"
    return (max(1, total // 10), "Steps / 10.") if rows else (None, "No validation rows.")
