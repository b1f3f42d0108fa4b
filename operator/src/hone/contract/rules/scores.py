"""Rules about bars of the gate, and about what else is scored: scorers, benchmarks, the judge."""

from hone.contract.expressions import Compare, IsSet, Matches, OneOf, Value
from hone.contract.judge import IN_CLUSTER
from hone.contract.metrics import Metric
from hone.contract.rules.places import BENCHMARKS, exactly_one
from hone.contract.rules.rule import Rule

GATE_RULES, SCORERS = "spec.gate.rules[]", "spec.evaluation.scorers[]"

ON_SCORES = (
    Rule(
        path=f"{GATE_RULES}.max",
        scope=GATE_RULES,
        applies_if=Compare(Value("of"), "==", "GroupGap") & ~IsSet("max"),
        message="is required with of: GroupGap: a small difference is the better one",
        remedy="Set max to the largest difference between groups, and no other bar.",
        spec_only=True,
    ),
    Rule(
        path=f"{GATE_RULES}.benchmark",
        scope=GATE_RULES,
        applies_if=Compare(Value("of"), "==", "Benchmark") & ~IsSet("benchmark"),
        message="is required with of: Benchmark",
        remedy="Set benchmark to a name of spec.evaluation.benchmarks.",
        spec_only=True,
    ),
    Rule(
        path=f"{GATE_RULES}.benchmark",
        scope=GATE_RULES,
        applies_if=IsSet("benchmark") & ~Compare(Value("of"), "==", "Benchmark"),
        message="is allowed only with of: Benchmark",
        remedy="Set of to Benchmark, or remove it.",
        spec_only=True,
    ),
    Rule(
        path=f"{SCORERS}.name",
        scope=SCORERS,
        applies_if=OneOf(Value("name"), tuple(metric.value for metric in Metric)),
        message="is the name of a metric that Hone has",
        remedy="Use another name.",
        spec_only=True,
    ),
    exactly_one(BENCHMARKS, "claim", "configMap"),
    Rule(
        path="spec.evaluation.judge.url",
        scope="spec.evaluation.judge",
        applies_if=Matches(Value("url"), "http://.*") & ~Matches(Value("url"), IN_CLUSTER),
        message="can begin with http:// only if it names a Service: rows, answers and key would be sent in plain text",
        remedy="Use https://, or the full name of a Service, such as http://judge.team.svc:8000/v1.",
    ),
)
