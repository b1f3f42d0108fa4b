"""The budget of a FineTuneJob: what its GPUs may be used for at most; and the estimate that it is compared with."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model

MAX_GPU_HOURS = 1e7
MAX_COST = 1e12


class Budget(Model):
    """Limits of GPU time and cost over all attempts. Training saves a checkpoint and stops when one is used up."""

    gpu_hours: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_GPU_HOURS,
            description="GPU hours that all attempts may use together, such as 12.5: hours multiplied by the number "
            "of GPUs, from the start of the pods.",
        ),
    ] = None
    cost: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_COST,
            description="The same as a price, in the currency of status.cost. Needs a price of the GPUs, which the "
            "administrator sets in the chart's value cost.",
        ),
    ] = None


class EstimateStatus(Model):
    """What training will need, as far as that is known."""

    gpu_hours_low: Annotated[float, Field(ge=0, description="Least GPU hours of the training steps.")]
    gpu_hours_high: Annotated[float, Field(ge=0, description="Most GPU hours of the training steps.")]
    basis: Annotated[
        str,
        Field(
            max_length=256,
            description="What the estimate is made from: the speed of this job's own steps, or a table of GPUs.",
        ),
    ]


class CostStatus(Model):
    """Price of the GPUs, and what the job has cost so far."""

    currency: Annotated[str, Field(max_length=16, description="Currency of all prices.")]
    per_gpu_hour: Annotated[float, Field(ge=0, description="Price of an hour of one GPU.")]
    used: Annotated[float, Field(ge=0, description="Price of status.usage.gpuHours.")] = 0.0
    estimated_low: Annotated[float | None, Field(ge=0, description="Price of the least GPU hours.")] = None
    estimated_high: Annotated[float | None, Field(ge=0, description="Price of the most GPU hours.")] = None
