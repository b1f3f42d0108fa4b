"""The learning rate of a run that resumes with another rate than its checkpoint has."""

from typing import Any


def set_peak_rate(optimizer: Any, scheduler: Any, peak: float) -> None:
    """Let a schedule run at another peak, from wherever it stands.

    A checkpoint restores the rates of the attempt that wrote it, in the schedule and in each group of the optimizer.
    Where they already follow `peak` nothing is changed.

    Args:
        optimizer: torch's, or a wrapper with its `param_groups`.
        scheduler: a LambdaLR, or accelerate's wrapper around one.
        peak: the rate that the schedule's factor, 0 to 1, is multiplied with.
    """
    inner = getattr(scheduler, "scheduler", scheduler)
    if all(base == peak for base in inner.base_lrs):
        return
    rates = [last * peak / base for last, base in zip(inner.get_last_lr(), inner.base_lrs, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"], group["initial_lr"] = rate, peak
    inner.base_lrs, inner._last_lr = [peak] * len(rates), rates
