"""The search for settings: what a spec asks for, what the plan makes of it, and what its trials have shown."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from hone.contract.base import MAX_INT32, Model

Count = Annotated[int, Field(ge=0, le=MAX_INT32)]
Figure = Annotated[float, Field(allow_inf_nan=False)]

MOST_TRIALS = 64


class Sampler(StrEnum):
    """How the settings of a trial are chosen, by Optuna's name."""

    TPE = "TPE"
    RANDOM = "Random"


class Pruner(StrEnum):
    """How trials are ended early."""

    ASHA = "ASHA"
    NONE = "None"


_FORM = "Set either min and max, or values."


class _Range(Model):
    """Numbers to try: a range, or a list."""

    log: Annotated[
        bool | None,
        Field(description="Whether trials are spread over the logarithm of the range. Allowed only with min and max."),
    ] = None


Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rank = Annotated[int, Field(ge=1, le=512)]
Scale = Annotated[int, Field(ge=1, le=4096)]


_LEAST = Field(description=f"Smallest number to try. {_FORM}")
_MOST = Field(description="Largest number to try.")


class RateRange(_Range):
    """Learning rates to try."""

    min: Annotated[Rate | None, _LEAST] = None
    max: Annotated[Rate | None, _MOST] = None
    values: Annotated[
        list[Rate] | None, Field(min_length=2, max_length=16, description=f"The numbers to try. {_FORM}")
    ] = None


class ShareRange(_Range):
    """Fractions to try."""

    min: Annotated[Share | None, _LEAST] = None
    max: Annotated[Share | None, _MOST] = None
    values: Annotated[
        list[Share] | None, Field(min_length=2, max_length=16, description=f"The numbers to try. {_FORM}")
    ] = None


class RankRange(_Range):
    """Ranks to try."""

    min: Annotated[Rank | None, _LEAST] = None
    max: Annotated[Rank | None, _MOST] = None
    values: Annotated[
        list[Rank] | None, Field(min_length=2, max_length=16, description=f"The numbers to try. {_FORM}")
    ] = None


class ScaleRange(_Range):
    """Scales to try."""

    min: Annotated[Scale | None, _LEAST] = None
    max: Annotated[Scale | None, _MOST] = None
    values: Annotated[
        list[Scale] | None, Field(min_length=2, max_length=16, description=f"The numbers to try. {_FORM}")
    ] = None


class SearchParameters(Model):
    """The settings that trials differ in."""

    learning_rate: Annotated[RateRange | None, Field(description="Peak learning rates.")] = None
    warmup_ratio: Annotated[
        ShareRange | None, Field(description="Fractions of the steps over which the learning rate rises.")
    ] = None
    weight_decay: Annotated[ShareRange | None, Field(description="Weight decays of AdamW.")] = None
    rank: Annotated[
        RankRange | None,
        Field(
            description="Ranks of LoRA. Where alpha is not searched, it keeps its ratio to the rank. Allowed only with "
            "type {adapter_methods}."
        ),
    ] = None
    alpha: Annotated[
        ScaleRange | None, Field(description="Scales of LoRA. Allowed only with type {adapter_methods}.")
    ] = None
    dropout: Annotated[
        ShareRange | None, Field(description="Dropouts of LoRA. Allowed only with type {adapter_methods}.")
    ] = None


PARAMETERS = tuple(SearchParameters.model_fields)
"""Names of the settings that can be searched, as in Python."""
SHARES = ("warmup_ratio", "weight_decay", "dropout")
"""Those that may be 0."""
WHOLE = ("rank", "alpha")
"""Those that are whole numbers."""
OF_ADAPTERS = ("rank", "alpha", "dropout")
"""Those that only adapters have."""


class Search(Model):
    """A search for better settings than the defaults, by short trials before the training."""

    trials: Annotated[
        int,
        Field(
            ge=2,
            le=MOST_TRIALS,
            description="Number of trials. The first one has the settings of the plan; fewer are made where the budget "
            "is too small for them.",
        ),
    ] = 8
    parameters: Annotated[
        SearchParameters | None,
        Field(
            description="The settings to search. Default: the learning rate from a tenth to ten times the plan's; with "
            "16 trials or more and type {adapter_methods}, also the rank, except where answers are rewarded."
        ),
    ] = None
    budget_fraction: Annotated[
        float,
        Field(
            gt=0,
            le=20,
            description="Most optimizer steps of all trials together, as a multiple of those of the training.",
        ),
    ] = 1.5
    sampler: Annotated[
        Sampler,
        Field(
            description="How settings are chosen. TPE: more often near those that did well before. Random: "
            "independently."
        ),
    ] = Sampler.TPE
    pruner: Annotated[
        Pruner,
        Field(
            description="How trials are ended early. ASHA: after a quarter and a half of its steps, a trial "
            "continues only if it is among the better half so far. None: all run to their end."
        ),
    ] = Pruner.ASHA
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Random seed of the choice of settings.")] = 42


class PlannedRange(Model):
    """The values of a setting that trials try."""

    min: Annotated[Figure | None, Field(description="Smallest value.")] = None
    max: Annotated[Figure | None, Field(description="Largest value.")] = None
    log: Annotated[bool | None, Field(description="Whether trials are spread over the logarithm.")] = None
    values: Annotated[list[Figure] | None, Field(max_length=16, description="The values, if they are listed.")] = None


class PlannedParameters(Model):
    """The settings that trials differ in."""

    learning_rate: Annotated[PlannedRange | None, Field(description="Peak learning rates.")] = None
    warmup_ratio: Annotated[PlannedRange | None, Field(description="Fractions of the steps with a rising rate.")] = None
    weight_decay: Annotated[PlannedRange | None, Field(description="Weight decays.")] = None
    rank: Annotated[PlannedRange | None, Field(description="Ranks of LoRA.")] = None
    alpha: Annotated[PlannedRange | None, Field(description="Scales of LoRA.")] = None
    dropout: Annotated[PlannedRange | None, Field(description="Dropouts of LoRA.")] = None


class PlannedSearch(Model):
    """The trials that are made before the training."""

    trials: Annotated[Count, Field(description="Number of trials.")]
    steps_per_trial: Annotated[Count, Field(description="Optimizer steps of a trial that is not ended early.")]
    total_steps: Annotated[Count, Field(description="Most optimizer steps of all trials together.")]
    parameters: Annotated[PlannedParameters, Field(description="The settings that trials differ in.")]


class Values(Model):
    """Values of settings that were searched."""

    learning_rate: Annotated[Figure | None, Field(description="Peak learning rate.")] = None
    warmup_ratio: Annotated[Figure | None, Field(description="Fraction of the steps with a rising rate.")] = None
    weight_decay: Annotated[Figure | None, Field(description="Weight decay.")] = None
    rank: Annotated[Count | None, Field(description="Rank of LoRA.")] = None
    alpha: Annotated[Count | None, Field(description="Scale of LoRA.")] = None
    dropout: Annotated[Figure | None, Field(description="Dropout of LoRA.")] = None


class BestTrial(Model):
    """The trial with the lowest loss on the validation rows or, if answers are rewarded, the highest reward."""

    number: Annotated[Count, Field(description="Number of the trial; 0 has the settings of the plan.")]
    value: Annotated[Figure, Field(description="Its loss on the validation rows, or its reward.")]
    parameters: Annotated[Values, Field(description="Its settings.")]


class SearchSummary(Model):
    """What the search has shown so far."""

    trials: Annotated[Count, Field(description="Number of trials that are planned.")]
    done: Annotated[Count, Field(description="Number of trials that have ended, those that were ended early included.")]
    pruned: Annotated[Count, Field(description="Number of trials that were ended early.")] = 0
    spent: Annotated[Count, Field(description="Optimizer steps of the trials that have ended.")] = 0
    best: Annotated[BestTrial | None, Field(description="The best of the trials that ran to their end.")] = None
    outcome: Annotated[
        str | None,
        Field(max_length=256, description="What is trained, and why, once all trials have ended."),
    ] = None


class CurvePoint(Model):
    """A loss on the validation rows in a trial; the mean reward of the latest half of its steps, if there is any."""

    step: Count
    loss: Figure | None = None
    reward: Figure | None = None


class TrialRecord(Model):
    """A trial that has ended."""

    number: Count
    state: Annotated[str, Field(max_length=16)]
    """Complete; Pruned, if it was ended early; Failed, if its loss was not finite or it ran out of memory."""
    parameters: Values
    steps: Count
    """Optimizer steps that it made."""
    curve: Annotated[list[CurvePoint], Field(max_length=16)] = []
    reason: Annotated[str | None, Field(max_length=128)] = None
    """Why it failed."""


class SearchRecord(Model):
    """A search that has ended, on the workspace and in the report."""

    @property
    def rewarded(self) -> bool:
        """Whether trials were judged by their rewards."""
        return any(point.reward is not None for trial in self.trials for point in trial.curve)

    summary: SearchSummary
    chosen: Values
    """The settings that are trained; without any, those of the plan."""
    trials: Annotated[list[TrialRecord], Field(max_length=MOST_TRIALS)]
    improvement: Annotated[list[Figure] | None, Field(min_length=3, max_length=3)] = None
    """Loss of the plan's settings minus that of the best trial's, on the same validation rows, with lower and upper
    bound, or reward of the best trial minus theirs, for the same prompts; None: the plan's settings were the best."""
    confidence: Figure | None = None
    """Confidence of the bounds, which counts that the best of several trials is compared."""
    run_config: str = ""
    """Digest of the RunConfig that it was made for."""
