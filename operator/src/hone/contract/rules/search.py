"""The rules on a search: which settings can be searched with what, and which ranges make sense."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic.alias_generators import to_camel

from hone.contract.expressions import Compare, Expression, IsSet, OneOf, Value
from hone.contract.methods import ADAPTER_METHODS, WEIGHT_METHODS, MethodType
from hone.contract.objectives import Objective, ObjectiveFacts
from hone.contract.rules.rule import Rule
from hone.contract.search import OF_ADAPTERS, PARAMETERS, SHARES

OBJECTIVE = Value("objective", Objective.SFT.value)
METHOD = Value("method.type", MethodType.LORA.value)
_PLACE = "spec.search.parameters"
_LISTED, _LEAST, _MOST = IsSet("values"), IsSet("min"), IsSet("max")


def on_search(objectives: Mapping[Objective, ObjectiveFacts]) -> Iterator[Rule]:
    """All rules on `spec.search`."""
    imitating = tuple(one.value for one, facts in objectives.items() if facts.generates and not facts.needs.reward)
    rewarded = tuple(one.value for one, facts in objectives.items() if facts.needs.reward)
    yield _refused(
        OneOf(OBJECTIVE, imitating),
        f"is not supported with objective {' or '.join(imitating)}: no loss on validation rows is computed while the "
        "model learns from answers that it writes, and they have no reward",
        "Remove it.",
    )
    yield _refused(
        OneOf(Value("compute.zeroStage"), (2, 3)),
        "is supported only with zeroStage 0: DeepSpeed cannot train the model that it holds a second time",
        "Remove it, or set spec.compute.zeroStage to 0.",
    )
    yield _refused(
        Compare(Value("dataset.validation.fraction"), "<=", 0.0) & ~OneOf(OBJECTIVE, rewarded),
        "needs validation rows, by whose loss trials are compared, but dataset.validation.fraction is 0",
        "Set spec.dataset.validation, or remove it.",
    )
    yield replace(
        _refused(
            IsSet("checkpoint.continueFrom"),
            "cannot be set together with checkpoint.continueFrom: the checkpoint has settings already",
            "Remove one of them.",
        ),
        spec_only=True,
    )
    for name in PARAMETERS:
        yield from _on_range(name)


def _refused(applies_if: Expression, message: str, remedy: str) -> Rule:
    return Rule(path="spec.search", applies_if=IsSet("search") & applies_if, message=message, remedy=remedy)


def _on_range(name: str) -> Iterator[Rule]:
    field = to_camel(name)
    place = f"{_PLACE}.{field}"
    if name in OF_ADAPTERS:
        yield Rule(
            path=place,
            applies_if=IsSet(place.removeprefix("spec.")) & OneOf(METHOD, WEIGHT_METHODS),
            message=f"is supported only with method {' or '.join(ADAPTER_METHODS)}",
            remedy="Remove it.",
        )
    yield Rule(
        path=place,
        scope=place,
        applies_if=~((_LEAST & _MOST & ~_LISTED) | (_LISTED & ~_LEAST & ~_MOST)),
        message="must have either min and max, or values",
        remedy="Set min and max for a range, or values for a list.",
    )
    yield Rule(
        path=f"{place}.max",
        scope=place,
        applies_if=Compare(Value("min"), ">=", Value("max")),
        message="must be above min: the range is empty",
        remedy="Raise max, or lower min.",
    )
    logarithmic = Compare(Value("log"), "==", True)
    yield Rule(
        path=f"{place}.log",
        scope=place,
        applies_if=logarithmic & _LISTED,
        message="is not supported with values, each of which is as likely",
        remedy="Remove it.",
    )
    if name in SHARES:
        yield Rule(
            path=f"{place}.log",
            scope=place,
            applies_if=logarithmic & Compare(Value("min"), "<=", 0.0),
            message="needs a min above 0, whose logarithm exists",
            remedy="Raise min, or remove log.",
        )
