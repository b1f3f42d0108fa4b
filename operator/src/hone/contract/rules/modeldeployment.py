"""The rules on a ModelDeployment."""

from hone.contract.rules.places import one_value
from hone.contract.rules.rule import Rule

VARIABLES = ("spec.runtime.env[]", "spec.pod.env[]")
RULES: tuple[Rule, ...] = tuple(one_value(place) for place in VARIABLES)
