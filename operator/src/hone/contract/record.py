"""What only the operator knows of a run, for the report: its attempts, its GPU time, and what that costs."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.plan import Amount, Count, Positive

MAX_ATTEMPTS = 20


class Price(Model):
    """What an hour of one GPU costs."""

    currency: Annotated[str, Field(max_length=16, description="Currency, such as EUR.")]
    per_gpu_hour: Annotated[float, Field(ge=0, description="Price of one GPU for an hour.")]

    def of(self, gpu_seconds: float) -> float:
        """The price of so many GPU seconds."""
        return gpu_seconds / 3600 * self.per_gpu_hour


class AttemptRecord(Model):
    """An attempt at a step that has ended."""

    step: Annotated[str, Field(max_length=16, description="Step of the run: prepare, train, finish or publish.")]
    number: Annotated[Positive, Field(description="Number of the attempt within its step.")]
    start_time: Annotated[str | None, Field(max_length=32, description="When it began.")] = None
    end_time: Annotated[str | None, Field(max_length=32, description="When its end was observed.")] = None
    result: Annotated[str, Field(max_length=32, description="How it ended.")]
    failure_class: Annotated[str | None, Field(max_length=64, description="Class of its failure.")] = None
    message: Annotated[str | None, Field(max_length=512, description="What happened.")] = None
    hint: Annotated[str | None, Field(max_length=256, description="What to do about it.")] = None
    changes: Annotated[
        list[Annotated[str, Field(max_length=256)]],
        Field(max_length=8, description="What it did differently from the plan, and why."),
    ] = []


class RunRecord(Model):
    """A run up to the beginning of its finish step."""

    attempts: Annotated[
        list[AttemptRecord], Field(max_length=MAX_ATTEMPTS, description="The newest attempts, oldest first.")
    ] = []
    gpu_seconds: Annotated[Amount, Field(description="GPU time of all attempts, in seconds.")] = 0
    gpus: Annotated[Count, Field(description="GPUs of one training attempt; 0 trains on CPUs.")] = 0
    retries: Annotated[Count, Field(description="Failures that counted against retry.limit.")] = 0
    price: Annotated[Price | None, Field(description="Price of the GPUs, if the administrator set one.")] = None
