"""Fills references of descriptions, such as `{learning_rate}`, from the records of objectives and methods."""

from collections.abc import Callable
from string import Formatter
from typing import TypeVar

from hone.contract.methods import ADAPTER_METHODS, METHODS, WEIGHT_METHODS, MethodType
from hone.contract.objectives import OBJECTIVES, ObjectiveFacts, objectives_of
from hone.contract.rules.finetunejob import either
from hone.contract.settings import DataFormat

T = TypeVar("T")

FEW_ROWS, EPOCHS_OF_FEW, EPOCHS_OF_MANY = 10_000, 3, 1
"""Epochs by the number of training rows, where the objective has no default."""


def number(value: float) -> str:
    """A number as people write it: 0.03, 16, 2e-4."""
    if 0 < value < 0.001:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def listed(names: list[str]) -> str:
    """Names in a sentence: A, B and C."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _names(fits: Callable[[ObjectiveFacts], object], separator: str | None = None) -> str:
    """The objectives that meet a condition, as part of a sentence or with a separator."""
    fitting = [objective.value for objective, facts in OBJECTIVES.items() if fits(facts)]
    return listed(fitting) if separator is None else separator.join(fitting)


def _by_value(value: Callable[[ObjectiveFacts], T | None], text: Callable[[T], str], *, usual: bool = False) -> str:
    """A default of each objective: `0.03 for A and B, 0.1 for C`; objectives without a value are left out.

    Args:
        value: the default by the objective's record.
        text: formats it.
        usual: whether the most common value comes first, without names: `0.03, but 0.1 for C`.
    """
    groups: dict[T, list[str]] = {}
    for objective, facts in OBJECTIVES.items():
        default = value(facts)
        if default is not None:
            groups.setdefault(default, []).append(objective.value)
    common = max(groups, key=lambda default: len(groups[default])) if usual else None
    rest = ", ".join(f"{text(value)} for {listed(names)}" for value, names in groups.items() if value != common)
    return rest if common is None else f"{text(common)}, but {rest}"


def _learning_rates() -> str:
    """Rates by method, methods with the same rates together."""
    groups: dict[str, list[str]] = {}
    for method in MethodType:
        rates = _by_value(lambda facts, method=method: facts.defaults.learning_rate.get(method), number)  # type: ignore[misc]
        groups.setdefault(rates, []).append(method.value)
    return "; ".join(f"with {listed(methods)} {rates}" for rates, methods in groups.items())


def _epochs() -> str:
    by_rows = _names(lambda facts: facts.defaults.epochs is None)
    few = f"{EPOCHS_OF_FEW} with fewer than {FEW_ROWS:,} training rows, {EPOCHS_OF_MANY} with {FEW_ROWS:,} or more"
    return f"{_by_value(lambda facts: facts.defaults.epochs, number)}; for {by_rows} {few}"


def _least_rows() -> str:
    """Such as `KTO: at least 2`."""
    least = {o.value: facts.data.least_micro_batch for o, facts in OBJECTIVES.items()}
    return "; ".join(f"{name}: at least {rows}" for name, rows in least.items() if rows > 1)


def _of_format(format: DataFormat) -> str:
    names = [objective.value for objective in objectives_of(format)]
    return f"objective{'s' if len(names) > 1 else ''} {listed(names)}"


def _has_beta(facts: ObjectiveFacts) -> bool:
    return facts.defaults.beta is not None


def values() -> dict[str, str]:
    """Every text that a description may refer to, by name."""
    return {
        "learning_rate": _learning_rates(),
        "epochs": _epochs(),
        "scheduler": _by_value(lambda facts: facts.defaults.scheduler.value, str, usual=True),
        "warmup_ratio": _by_value(lambda facts: facts.defaults.warmup_ratio, number, usual=True),
        "global_batch_size": _by_value(lambda facts: facts.defaults.global_batch_size, number, usual=True),
        "largest_batch_size": _by_value(lambda facts: facts.defaults.largest_batch_size, number),
        "least_rows": _least_rows(),
        "lora_dropout": _names(lambda facts: facts.defaults.lora_dropout),
        "beta": _by_value(lambda facts: facts.defaults.beta, number),
        "beta_zero": _names(lambda facts: facts.defaults.beta_may_be_zero),
        "held_to_reference": _names(lambda facts: _has_beta(facts) and facts.needs.reference, ", "),
        "beta_without_reference": _names(lambda facts: _has_beta(facts) and not facts.needs.reference, ", "),
        "generations": _by_value(
            lambda facts: facts.rollout.generations if facts.rollout and facts.rollout.compares else None, number
        ),
        "rewarded": _names(lambda facts: facts.needs.reward, ", "),
        "compares_answers": _names(lambda facts: facts.compares_answers, ", "),
        "writes_scored": _names(lambda facts: facts.compares_answers or facts.needs.reward, ", "),
        "rewarded_listed": _names(lambda facts: facts.needs.reward),
        "on_policy": _names(lambda facts: facts.generates, ", "),
        "on_policy_listed": _names(lambda facts: facts.generates),
        "no_chats": _names(lambda facts: not facts.data.has_conversations),
        "has_head": _names(lambda facts: facts.has_head),
        "methods": " ".join(facts.trains for facts in METHODS.values()),
        "adapter_methods": either(ADAPTER_METHODS),
        "weight_methods": either(WEIGHT_METHODS),
        "taught": _names(lambda facts: facts.needs.teacher, ", "),
        "packs": _names(lambda facts: facts.data.packs, ", "),
        "marks_tokens": _names(lambda facts: facts.data.marks_tokens, ", "),
        "balances": _names(lambda facts: facts.data.balances, ", "),
        **{format.value: _of_format(format) for format in DataFormat if objectives_of(format)},
    }


def fill(description: str) -> str:
    """A description with its references replaced.

    Raises:
        KeyError: a name is not one of `values`.
    """
    if not any(name for _, name, _, _ in Formatter().parse(description)):
        return description
    return description.format_map(values())
