"""How many GPU hours training will take: from the speed of its own steps, else from a table of GPUs."""

from hone.api.budget import EstimateStatus
from hone.api.finetunejob_status import GpuStatus
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.progress import Progress

TERAFLOPS = {
    "V100": 112,
    "T4": 65,
    "A10": 125,
    "A30": 165,
    "A40": 150,
    "A100": 312,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "H100": 989,
    "H200": 989,
    "H800": 989,
    "GH200": 989,
    "B100": 1750,
    "B200": 2250,
}
"""Peak of dense products of 16-bit matrices in 10^12 operations per second, from NVIDIA's data sheets. Of models that
are sold with slower clocks, such as those for PCIe, the same: the range is wide enough."""
BEST_SHARE, WORST_SHARE = 0.5, 0.1
"""Shares of the peak that training reaches: long rows of a large model, and short rows of a small one."""
FULL_FLOPS, ADAPTER_FLOPS, RECOMPUTED_FLOPS = 6, 4, 2
"""Operations per parameter and token: forward 2, backward 2 for activations and 2 for the weights, which an adapter
leaves out; gradient checkpointing computes forward again."""
MEASURED_MARGIN = 0.3
"""Share by which a measured speed may be wrong over a whole run."""
MEASURED = "the measured speed of this job's optimizer steps"


def product_of(gpu: GpuStatus | None) -> str | None:
    """The model of the GPU as the table names it: the part of the label's product that is in it."""
    parts = (gpu.product or "").replace("_", "-").split("-") if gpu else []
    return next((part for part in parts if part in TERAFLOPS), None)


def from_table(
    objective: Objective, plan: Plan, dataset: DatasetSummary, gpu: GpuStatus | None
) -> EstimateStatus | None:
    """The estimate before anything was measured; None where the table says nothing about these GPUs or objective."""
    product, facts = product_of(gpu), OBJECTIVES[objective]
    if product is None or facts.generates or not dataset.tokens:
        return None
    factor = FULL_FLOPS if plan.trainable_parameters == plan.parameters else ADAPTER_FLOPS
    factor += RECOMPUTED_FLOPS if plan.gradient_checkpointing else 0
    operations = factor * plan.parameters * dataset.tokens * plan.epochs
    if plan.search is not None:
        operations *= 1 + plan.search.total_steps / plan.total_steps
    peak_hours = operations / (TERAFLOPS[product] * 1e12) / 3600
    return EstimateStatus(
        gpu_hours_low=_rounded(peak_hours / BEST_SHARE),
        gpu_hours_high=_rounded(peak_hours / WORST_SHARE),
        basis=f"a table of GPUs, not a measurement: {BEST_SHARE:.0%} to {WORST_SHARE:.0%} of the peak of {product}",
    )


def from_progress(progress: Progress, gpus: int, trial_steps: int = 0) -> EstimateStatus | None:
    """The estimate from the speed of steps, of which a probe may be the first; None before any was measured.

    Args:
        progress: what rank 0 reports.
        gpus: of the run.
        trial_steps: optimizer steps of a search before the training.
    """
    seconds, steps = progress.seconds_per_step, progress.total_steps
    if not seconds or seconds < 0 or not steps or not gpus:
        return None
    hours = (steps + trial_steps) * seconds * gpus / 3600
    # What is done is known; only the rest may still become slower or faster.
    left = MEASURED_MARGIN * (1 - min(progress.step, steps) / steps)
    return EstimateStatus(
        gpu_hours_low=_rounded(hours * (1 - left)), gpu_hours_high=_rounded(hours * (1 + left)), basis=MEASURED
    )


def _rounded(hours: float) -> float:
    """Two significant digits are more than an estimate knows."""
    return float(f"{hours:.2g}")
