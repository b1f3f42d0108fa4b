"""Which trials are made before the training: how many, how long, and of which settings."""

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.search import PARAMETERS, PlannedParameters, PlannedRange, PlannedSearch, Search
from hone.contract.settings import GenerationEngine
from hone_trainer.planning import needs
from hone_trainer.planning.choices.base import Choice, Choices
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.protocol.errors import BadInput

LEAST_STEPS = 10
"""Optimizer steps below which a trial shows nothing."""
RATE_FACTOR = 10
"""By how much the learning rate is searched downward and upward by default."""
TRIALS_FOR_RANKS = 16
"""Trials from which the rank is searched by default: fewer find the rate alone."""
MAX_RANK = 512


def choose_search(inputs: PlanInputs, choices: Choices) -> Choices:
    """The trials, within the budget.

    Raises:
        BadInput: trials cannot be compared, start from the same model, or be long enough.
    """
    search = inputs.config.search
    if search is None:
        return choices
    _check(inputs, choices)
    total = choices.get("total_steps", int)
    budget = int(search.budget_fraction * total)
    trials = min(search.trials, budget // LEAST_STEPS)
    if trials < 2:
        raise BadInput(
            "spec.search.budgetFraction",
            f"allows {budget} optimizer steps, which are too few for two trials of {LEAST_STEPS} steps",
            f"Set it to {2 * LEAST_STEPS / total:.1g} or more, or remove spec.search.",
        )
    steps = min(total, budget // trials)
    planned = PlannedSearch(
        trials=trials,
        steps_per_trial=steps,
        total_steps=trials * steps,
        parameters=_parameters(search, inputs.objective, trials, choices),
    )
    why = f"{trials} trials × at most {steps} steps, {trials * steps / total:.2g} × the {total} of the training."
    choices = choices.choose(search=Choice(planned, why))
    if trials == search.trials:
        return choices
    return choices.warn(
        f"Only {trials} of {search.trials} trials fit into spec.search.budgetFraction: each needs {LEAST_STEPS} steps."
    )


def _check(inputs: PlanInputs, choices: Choices) -> None:
    if choices.values.get("evaluation_every_steps") is None and not needs.has_reward(inputs.objective):
        raise BadInput(
            "spec.search",
            "needs validation rows, by whose loss trials are compared, but there are none",
            "Set spec.dataset.validation, or remove spec.search.",
        )
    if choices.get("zero_stage", int):
        raise BadInput(
            "spec.search",
            f"is supported only with plain DDP, but this run needs ZeRO stage {choices.get('zero_stage', int)}",
            f"Set spec.compute.zeroStage to 0 if {MethodType(inputs.method).value} fits in memory without it, use "
            "another method, or remove spec.search.",
        )
    ranks = inputs.config.search and inputs.config.search.parameters and inputs.config.search.parameters.rank
    if ranks and choices.values.get("generation_engine") is GenerationEngine.VLLM:
        raise BadInput(
            "spec.search.parameters.rank",
            "is not supported where a vLLM server generates the answers: it holds adapters of one rank",
            "Set spec.generation.engine to Trainer, or remove spec.search.parameters.rank.",
        )


def _parameters(search: Search, objective: Objective, trials: int, choices: Choices) -> PlannedParameters:
    if search.parameters is not None:
        requested = {name: getattr(search.parameters, name) for name in PARAMETERS}
        ranges = {
            name: PlannedRange(**each.model_dump(include={"min", "max", "log", "values"}))
            for name, each in requested.items()
            if each is not None
        }
        if ranges:
            return PlannedParameters(**ranges)
    rate = choices.get("learning_rate", float)
    by_rate = PlannedRange(min=rate / RATE_FACTOR, max=min(1.0, rate * RATE_FACTOR), log=True)
    if trials < TRIALS_FOR_RANKS or choices.lora is None or needs.has_reward(objective):
        return PlannedParameters(learning_rate=by_rate)
    rank = choices.get("lora_rank", int)
    ranks = sorted({max(1, rank // 4), rank, min(MAX_RANK, rank * 4)})
    return PlannedParameters(learning_rate=by_rate, rank=PlannedRange(values=[float(each) for each in ranks]))
