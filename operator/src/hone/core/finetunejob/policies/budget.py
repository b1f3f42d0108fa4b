"""What the GPUs of a run cost, and whether its budget allows another training attempt."""

from dataclasses import dataclass

from hone.api.budget import Budget, CostStatus, EstimateStatus
from hone.api.finetunejob_status import AttemptStatus
from hone.contract.record import Price
from hone.core.finetunejob.draft import Draft
from hone.core.finetunejob.run import Run
from hone.core.pods import Trouble

EXHAUSTED, TOO_SMALL, NO_PRICE = "BudgetExhausted", "BudgetTooSmall", "NoPrice"
REASONS = (EXHAUSTED, TOO_SMALL, NO_PRICE)
"""Reasons for which training waits until the budget or the prices are changed."""
LEAST_SECONDS = 60.0
"""An attempt that could train for less than this is not begun: loading the model takes about as long."""


@dataclass(frozen=True)
class Limit:
    """The tighter of both limits.

    Attributes:
        gpu_hours: as GPU hours.
        words: as the spec has it.
        field: the field of the spec.
    """

    gpu_hours: float
    words: str
    field: str


def price(run: Run) -> Price | None:
    """The price of the run's GPUs, if the administrator has set one."""
    if not run.training_gpus:
        return None
    prices = run.settings.prices
    amount = prices.of(run.gpu.product if run.gpu else None, run.compute.gpu_resource)
    return None if amount is None else Price(currency=prices.currency, per_gpu_hour=amount)


def limit(run: Run) -> Limit | None:
    """What the budget allows; None: everything, or a cost without a price."""
    budget, hourly = run.spec.budget or Budget(), price(run)
    limits = []
    if budget.gpu_hours is not None:
        limits.append(Limit(budget.gpu_hours, f"{budget.gpu_hours:g} GPU hours", "spec.budget.gpuHours"))
    if budget.cost is not None and hourly and hourly.per_gpu_hour:
        words = f"{budget.cost:g} {hourly.currency}, which are {budget.cost / hourly.per_gpu_hour:.3g} GPU hours"
        limits.append(Limit(budget.cost / hourly.per_gpu_hour, words, "spec.budget.cost"))
    return min(limits, key=lambda each: each.gpu_hours, default=None)


def seconds_left(run: Run, status: Draft) -> float | None:
    """How long the next training attempt may take before the budget is used up; None: there is no limit."""
    bound = limit(run)
    if bound is None or not run.training_gpus:
        return None
    return (bound.gpu_hours * 3600 - _used_seconds(status)) / run.training_gpus


def refusal(run: Run, status: Draft, last: AttemptStatus | None) -> Trouble | None:
    """Why the budget allows no further training attempt, or None.

    Args:
        run: the job.
        status: its status.
        last: the newest training attempt, or None before the first one.
    """
    budget = run.spec.budget
    if budget is None or not run.training_gpus:
        return None
    if budget.cost is not None and price(run) is None:
        return Trouble(
            NO_PRICE,
            f"spec.budget.cost: no price is set for {(run.gpu and run.gpu.product) or run.compute.gpu_resource}. Set "
            "gpuHours instead, or have the administrator set it in the chart's value cost.perGpuHour.",
        )
    bound, left = limit(run), seconds_left(run, status)
    if bound is None or left is None:
        return None
    if left < LEAST_SECONDS and not _used_seconds(status):
        return Trouble(
            TOO_SMALL,
            f"{bound.field} is {bound.words}: too little to load the model, for which {LEAST_SECONDS:g} seconds of "
            f"{run.training_gpus} GPUs are needed at least. Raise it.",
        )
    if left < LEAST_SECONDS:
        return Trouble(EXHAUSTED, _exhausted(bound, status))
    needed = status.estimate
    if last is None and needed is not None and needed.gpu_hours_low > bound.gpu_hours:
        return Trouble(
            TOO_SMALL,
            f"{bound.field} is {bound.words}, but training needs about {needed.gpu_hours_low:g} to "
            f"{needed.gpu_hours_high:g} GPU hours, by {needed.basis}. Raise it, or train fewer steps.",
        )
    return None


def _exhausted(bound: Limit, status: Draft) -> str:
    step = status.checkpoint.step if status.checkpoint else None
    total = status.plan.total_steps if status.plan else None
    where = f"; the checkpoint of step {step} of {total} is kept" if step is not None else ""
    return (
        f"{bound.field} is used up: {_used_seconds(status) / 3600:.3g} GPU hours of {bound.words}{where}. Raise it to "
        "continue from there."
    )


def _used_seconds(status: Draft) -> float:
    return status.usage.gpu_seconds if status.usage else 0


def cost(hourly: Price, used_hours: float, needed: EstimateStatus | None) -> CostStatus:
    """What has been used and is needed, as prices."""

    def of(hours: float) -> float:
        return round(hours * hourly.per_gpu_hour, 2)

    return CostStatus(
        currency=hourly.currency,
        per_gpu_hour=hourly.per_gpu_hour,
        used=of(used_hours),
        estimated_low=of(needed.gpu_hours_low) if needed else None,
        estimated_high=of(needed.gpu_hours_high) if needed else None,
    )
