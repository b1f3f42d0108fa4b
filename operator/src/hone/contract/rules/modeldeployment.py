"""The rules on a ModelDeployment."""

from hone.contract.rules.places import device, not_of_the_cluster, not_reserved, one_value
from hone.contract.rules.rule import Rule
from hone.contract.rules.vllm import closed_server, known_argument

VARIABLES = ("spec.runtime.env[]", "spec.pod.env[]")
POD_SETTINGS = ("spec.pod",)
RULES: tuple[Rule, ...] = (
    device("gpuResource"),
    *(rule(place) for place in VARIABLES for rule in (one_value, not_reserved, closed_server)),
    known_argument("spec.runtime.args[]"),
    *(not_of_the_cluster(place) for place in POD_SETTINGS),
)
