"""The rules on a ModelDeployment."""

from hone.contract.expressions import Compare, IsSet, OneOf, Value
from hone.contract.metrics import Metric
from hone.contract.rules.places import (
    device,
    exactly_one,
    inside_the_volume,
    not_of_the_cluster,
    not_reserved,
    one_value,
    only_at,
    only_with,
    pinned,
)
from hone.contract.rules.pods import pod_settings
from hone.contract.rules.rule import Rule
from hone.contract.rules.vllm import closed_server, known_argument

VARIABLES = ("spec.runtime.env[]", "spec.pod.env[]")
POD_SETTINGS = ("spec.pod",)
MODEL, BASE = "spec.model", "spec.model.base"
ROLLOUT = "spec.rollout"


def _not_of_a_job(field: str) -> Rule:
    """The rule that a field describes a model that was published: a job's status describes that of the job."""
    return Rule(
        path=f"{MODEL}.{field}",
        scope=MODEL,
        applies_if=IsSet(field) & IsSet("jobRef"),
        message="is not allowed with jobRef, whose job names it",
        remedy="Remove it.",
    )


_KEYS_OF_AN_OPEN_SERVER = Rule(
    path="spec.access.apiKeySecretRef",
    scope="spec.access",
    applies_if=IsSet("apiKeySecretRef") & OneOf(Value("mode"), ("Open",)),
    message="is not allowed with mode Open, which answers requests without a key",
    remedy="Set mode to Key, or remove it.",
)


def _only_canary(field: str) -> Rule:
    """The rule that a field of the rollout has a meaning only where a candidate runs next to the stable revision."""
    return Rule(
        path=f"{ROLLOUT}.{field}",
        scope=ROLLOUT,
        applies_if=IsSet(field) & Compare(Value("strategy", "RollingUpdate"), "!=", "Canary"),
        message="is allowed only with strategy Canary",
        remedy="Set strategy: Canary, or remove it.",
    )


RULES: tuple[Rule, ...] = (
    exactly_one(MODEL, "jobRef", "uri", "image"),
    exactly_one(BASE, "claim", "uri", "image"),
    *(_not_of_a_job(field) for field in ("digest", "base")),
    *(only_with(place, "credentialsSecretRef", "uri") for place in (MODEL, BASE)),
    *(only_at(place, "revision", "hf://") for place in (MODEL, BASE)),
    *(only_at(place, "s3", "s3://") for place in (MODEL, BASE)),
    inside_the_volume(f"{BASE}.claim"),
    *(rule(f"{place}.image") for place in (MODEL, BASE) for rule in (inside_the_volume, pinned)),
    device("gpuResource"),
    _KEYS_OF_AN_OPEN_SERVER,
    *(rule(place) for place in VARIABLES for rule in (one_value, not_reserved, closed_server)),
    known_argument("spec.runtime.args[]"),
    *(not_of_the_cluster(place) for place in POD_SETTINGS),
    *(_only_canary(field) for field in ("steps", "paused", "analysis")),
    exactly_one(f"{ROLLOUT}.analysis.dataset", "configMap", "claim"),
    inside_the_volume(f"{ROLLOUT}.analysis.dataset.claim"),
    Rule(
        path=f"{ROLLOUT}.analysis.metric",
        scope=f"{ROLLOUT}.analysis",
        applies_if=OneOf(Value("metric"), (Metric.LOSS.value,)),
        message="cannot be loss, which is no figure of an answer",
        remedy="Use another one, or remove it.",
    ),
    *(rule for place in POD_SETTINGS for rule in pod_settings(place)),
)
