"""The gate decides by intervals; it is decided again when it is edited, and what it refuses is not served."""

import random
from typing import Any

import pytest

from hone.api.gate import Gate, GateStatus, Rows
from hone.contract.benchmarks import Benchmark
from hone.contract.judge import Judge
from hone.contract.objectives import Objective
from hone.contract.objects import ClaimPath
from hone.contract.results import (
    BenchmarkSummary,
    EvaluationSummary,
    GroupSummary,
    Interval,
    JudgeSummary,
    RetentionSummary,
    Score,
)
from hone.contract.settings import Evaluation, Retention
from hone.core.finetunejob.policies.gate import decide
from hone.core.finetunejob.policies.gate_expectation import NEEDS, expectation, needed_rows, smallest_effect, warnings
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.runs import finishing, training


def interval(value: float, half: float) -> Interval:
    """A symmetric interval, which is wider at higher confidence as that of a normal distribution."""
    levels = {"0.9": 0.84, "0.99": 1.314, "0.999": 1.679}
    bounds = {level: [value - half * factor, value + half * factor] for level, factor in levels.items()}
    return Interval(value=value, lower=value - half, upper=value + half, levels=bounds)


def score(metric: str, tuned: float, improvement: float, half: float, samples: int = 200, higher: bool = True) -> Score:
    return Score(
        metric=metric,
        higher_is_better=higher,
        samples=samples,
        base=interval(tuned - improvement, half),
        tuned=interval(tuned, half),
        improvement=interval(improvement, half),
    )


SCORES = EvaluationSummary(
    scores=[score("exactMatch", 0.8, 0.1, 0.05), score("loss", 1.2, 0.02, 0.1, higher=False)],
)


def gate(*rules: dict[str, Any], confidence: float = 0.95) -> Gate:
    return Gate.from_dict({"rules": list(rules), "confidence": confidence})


@pytest.mark.parametrize(
    ("rule", "confidence", "verdict", "words"),
    [
        ({"min": 0.7}, 0.95, "Pass", "exactMatch >= 0.7"),
        ({"min": 0.75}, 0.95, "Pass", "the bound is the bar"),
        ({"min": 0.75}, 0.99, "Inconclusive", "wider at higher confidence"),
        ({"min": 0.757}, 0.9, "Pass", "narrower at lower confidence"),
        ({"min": 0.8}, 0.95, "Inconclusive", "the figure alone reaches it"),
        ({"min": 0.84}, 0.95, "Inconclusive", ""),
        ({"min": 0.86}, 0.95, "Fail", ""),
        ({"minImprovement": 0.0}, 0.95, "Pass", ""),
        ({"minImprovement": 0.06}, 0.95, "Inconclusive", ""),
        ({"minImprovement": 0.2}, 0.95, "Fail", ""),
        ({"metric": "loss", "maxRegression": 0.1}, 0.95, "Pass", "-0.08 is above -0.1"),
        ({"metric": "loss", "maxRegression": 0.05}, 0.95, "Inconclusive", ""),
        ({"metric": "loss", "max": 1.31}, 0.95, "Pass", ""),
        ({"metric": "loss", "max": 1.25}, 0.95, "Inconclusive", ""),
        ({"metric": "loss", "max": 1.0}, 0.95, "Fail", ""),
        ({"metric": "loss", "min": 1.0}, 0.95, "Inconclusive", "less is better"),
        ({"metric": "exactMatch", "max": 1.0}, 0.95, "Inconclusive", "more is better"),
        ({"metric": "macroF1", "min": 0.1}, 0.95, "Inconclusive", "not scored"),
    ],
)
def test_a_rule_is_decided_by_the_bounds(rule: dict[str, Any], confidence: float, verdict: str, words: str) -> None:
    decided = decide(gate(rule, confidence=confidence), SCORES)
    assert decided.decision == verdict, words
    assert decided.rules and [each.verdict for each in decided.rules] == [verdict]


def test_what_does_not_apply_says_why_and_what_to_do() -> None:
    rules = ({"metric": "loss", "min": 1.0}, {"metric": "macroF1", "min": 0.1}, {"metric": "exactMatch", "max": 1.0})
    results = decide(gate(*rules), SCORES).rules or []
    assert [each.message for each in results] == [
        "less of it is better: use max",
        "it was not scored; scored: exactMatch, loss",
        "more of it is better: use min",
    ]


def test_figures_and_rule_are_in_the_message() -> None:
    decided = decide(gate({"minImprovement": 0.2}), SCORES)
    assert decided.message == "Fail at confidence 0.95: exactMatch improvement >= 0.2: 0.10 [0.05, 0.15], 200 rows"
    (result,) = decided.rules or []
    assert (result.value, result.samples, result.bar) == (0.1, 200, 0.2)
    passed = decide(gate({"min": 0.7}, {"minImprovement": 0}), SCORES).message
    assert passed.startswith("all 2 rules pass at confidence 0.95: exactMatch >= 0.7: 0.80 [0.75, 0.85], 200 rows; ")
    assert passed.endswith("A model that misses a bar passes in at most 2.5 %")


def test_an_inconclusive_rule_says_how_many_rows_would_decide() -> None:
    (result,) = decide(gate({"minImprovement": 0.075}), SCORES).rules or []
    assert result.message == "about 800 rows would decide, if the figure stays", (
        "half the margin needs 4 times the rows"
    )
    (result,) = decide(gate({"minImprovement": 0.1}), SCORES).rules or []
    assert result.message is None, "on the bar itself, no number of rows would"


@pytest.mark.parametrize(("samples", "verdict"), [(29, "Inconclusive"), (30, "Pass")])
def test_few_rows_decide_nothing(samples: int, verdict: str) -> None:
    few = EvaluationSummary(scores=[score("loss", 1.0, 0.9, 0.01, samples=samples, higher=False)])
    assert decide(gate({"minImprovement": 0.5}), few).decision == verdict


def test_an_interval_without_width_decides_nothing() -> None:
    perfect = EvaluationSummary(scores=[score("macroF1", 1.0, 0.5, 0.0)])
    decided = decide(gate({"min": 0.99}), perfect)
    assert decided.decision == "Inconclusive" and "no width" in decided.message


def test_scores_of_an_earlier_release_decide_at_no_higher_confidence() -> None:
    old = Interval(value=0.8, lower=0.75, upper=0.85)
    known = EvaluationSummary(
        scores=[Score(metric="m", higher_is_better=True, samples=200, base=old, tuned=old, improvement=old)]
    )
    assert decide(gate({"min": 0.5}, confidence=0.9), known).decision == "Pass", "0.95 is more than was demanded"
    assert decide(gate({"min": 0.5}), known).decision == "Pass"
    decided = decide(gate({"min": 0.5}, confidence=0.99), known)
    assert decided.decision == "Inconclusive" and "score again" in decided.message


def test_of_several_rules_one_that_misses_by_chance_fails_not_but_one_that_misses_clearly_does() -> None:
    barely, clearly = {"min": 0.855}, {"min": 0.9}
    assert decide(gate(barely), SCORES).decision == "Fail"
    both = decide(gate(barely, {"minImprovement": 0}), SCORES)
    assert both.decision == "Inconclusive" and "for several rules" in both.message
    assert [each.verdict for each in decide(gate(clearly, {"minImprovement": 0}), SCORES).rules or []] == [
        "Fail",
        "Pass",
    ]
    assert "Holm" in decide(gate(clearly, {"minImprovement": 0}), SCORES).message
    steps = decide(gate(clearly, barely), SCORES).rules or []
    assert [each.verdict for each in steps] == ["Fail", "Fail"], "the second one stands alone, once the first is out"


def test_one_fail_outweighs_what_is_inconclusive_and_that_what_passes() -> None:
    rules = {"Fail": {"min": 0.95}, "Inconclusive": {"min": 0.8}, "Pass": {"min": 0.5}}
    for order in (["Pass", "Inconclusive", "Fail"], ["Fail", "Pass"], ["Inconclusive", "Pass"], ["Pass", "Pass"]):
        decided = decide(gate(*(rules[name] for name in order)), SCORES)
        assert decided.decision == min(order, key=["Fail", "Inconclusive", "Pass"].index)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_model_on_the_bar_passes_in_at_most_one_of_forty_and_fails_in_no_more(count: int) -> None:
    chance, passed, failed, runs = random.Random(count), 0, 0, 2_000
    rules = gate(*[{"metric": f"m{index}", "minImprovement": 0.0} for index in range(count)])
    for _ in range(runs):
        scores = [score(f"m{index}", 0.5, chance.gauss(0, 1) * 0.05, 0.098) for index in range(count)]
        decision = decide(rules, EvaluationSummary(scores=scores)).decision
        passed, failed = passed + (decision == "Pass"), failed + (decision == "Fail")
    assert passed / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
    assert failed / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5


def test_what_as_many_rows_can_show_is_said_before_training() -> None:
    first, *others = expectation(gate({"minImprovement": 0.05}), Objective.SFT, 500, Evaluation())
    assert first.startswith(
        "500 test rows can show that a share such as exactMatch differs by about 0.06 or more; 2,000"
    )
    assert others == [] and warnings(gate({"minImprovement": 0.05}), Objective.SFT, 500, Evaluation()) == []
    assert smallest_effect(2_000, 0.95) == pytest.approx(smallest_effect(500, 0.95) / 2)
    assert needed_rows(smallest_effect(500, 0.95), 0.95) in (500, 501)
    assert smallest_effect(500, 0.99) > smallest_effect(500, 0.95)


@pytest.mark.parametrize(
    ("rule", "objective", "rows", "words"),
    [
        ({"min": 0.5}, Objective.SFT, 29, "29 test rows decide nothing"),
        ({"metric": "exactMatch", "maxRegression": 0.02}, Objective.SFT, 80, "4,906 test rows; there are 80"),
        ({"metric": "accuracy", "maxRegression": 0}, Objective.CLASSIFICATION, 80, "truly better than the base"),
        (
            {"metric": "exactMatch", "min": 0.5},
            Objective.CLASSIFICATION,
            500,
            "not scored with objective Classification",
        ),
    ],
)
def test_a_rule_that_cannot_be_expected_to_pass_is_warned_of(
    rule: dict[str, Any], objective: Objective, rows: int, words: str
) -> None:
    (sentence,) = warnings(gate(rule), objective, rows, Evaluation())
    assert sentence.startswith("spec.gate") and words in sentence


def test_there_is_a_sentence_for_each_rule_and_status_has_room_for_all_of_them() -> None:
    rules = gate(*[{"metric": "exactMatch", "maxRegression": 0.0}] * 8)
    expected = expectation(rules, Objective.CLASSIFICATION, 500, Evaluation())
    assert len(expected) == 9
    assert GateStatus(confidence=0.95, message="not scored yet", expectation=expected).expectation == expected


def test_bars_next_to_nothing_have_no_number_of_rows() -> None:
    rule = {"metric": "accuracy", "maxRegression": 1e-200}
    (sentence,) = warnings(gate(rule), Objective.CLASSIFICATION, 500, Evaluation())
    assert "regression <= 1e-200 passes only if the model is truly better" in sentence
    unchanged = EvaluationSummary(scores=[score("exactMatch", 0.8, 0.0, 0.05)])
    decided = decide(gate({"minImprovement": 1e-200}), unchanged)
    assert decided.decision == "Inconclusive"
    assert "rows would decide" not in decided.message


def test_names_and_levels_that_a_pod_makes_up_are_no_obstacle() -> None:
    made_up = score("r" * 64, 0.8, 0.1, 0.05)
    decided = decide(gate(*[{"minImprovement": 0.0123456}] * 8), EvaluationSummary(scores=[made_up]))
    assert decided.decision == "Pass"
    assert len(decided.message) == 1024 and decided.message.endswith("…")
    odd = made_up.improvement.model_copy(update={"levels": {"most": [0.0, 1.0]}})
    assert odd.at(0.95) == (odd.lower, odd.upper)
    assert odd.at(0.99) is None


GROUPS = GroupSummary(
    column="language",
    metric="exactMatch",
    higher_is_better=True,
    count=3,
    insufficient=1,
    samples=40,
    worst=interval(0.6, 0.1),
    worst_improvement=interval(0.05, 0.1),
    gap=interval(0.2, 0.09),
)
JUDGE = JudgeSummary(
    model="judge",
    scores=[score("lengthControlledWinRate", 0.7, 0.4, 0.1)],
    ties=0.1,
    agreement=interval(0.9, 0.05),
    first_preferred=interval(0.5, 0.05),
)
BENCHMARKS = [BenchmarkSummary(name="faq", scores=[score("exactMatch", 0.7, 0.4, 0.1)])]
RETENTION = RetentionSummary(set="General", scores=[score("loss", 2.0, -0.02, 0.05, samples=240, higher=False)])


@pytest.mark.parametrize(
    ("rule", "verdict", "words"),
    [
        ({"of": "WorstGroup", "min": 0.5}, "Pass", "exactMatch of the worst group >= 0.5: 0.60 [0.50, 0.70], 40 rows"),
        ({"of": "WorstGroup", "min": 0.65}, "Inconclusive", "exactMatch of the worst group"),
        ({"of": "WorstGroup", "min": 0.75}, "Fail", "0.60 [0.50, 0.70], 40 rows"),
        ({"of": "WorstGroup", "maxRegression": 0.06}, "Pass", "exactMatch of the worst group regression <= 0.06"),
        ({"of": "WorstGroup", "metric": "loss", "min": 0.5}, "Inconclusive", "it was not scored; scored: exactMatch"),
        ({"of": "Retention", "maxRegression": 0.08}, "Pass", "loss of retention regression <= 0.08"),
        ({"of": "Retention", "maxRegression": 0.0}, "Inconclusive", "240 rows; about"),
        ({"of": "Retention", "minImprovement": 0.1}, "Fail", "-0.02 [-0.07, 0.03]"),
        ({"of": "GroupGap", "max": 0.3}, "Pass", "exactMatch gap between groups <= 0.3: 0.20 [0.11, 0.29], 40 rows"),
        ({"of": "GroupGap", "max": 0.2}, "Inconclusive", "exactMatch gap between groups <= 0.2"),
        ({"of": "GroupGap", "max": 0.05}, "Fail", "0.20 [0.11, 0.29]"),
        ({"of": "Benchmark", "benchmark": "faq", "min": 0.5}, "Pass", "exactMatch of faq >= 0.5: "),
        ({"of": "Benchmark", "benchmark": "else", "min": 0.5}, "Inconclusive", "scored: nothing"),
        ({"of": "Judge", "min": 0.5}, "Pass", "lengthControlledWinRate by the judge >= 0.5: 0.70 [0.60, 0.80]"),
        ({"of": "Judge", "min": 0.65}, "Inconclusive", "0.70 [0.60, 0.80], 200 rows; about"),
        ({"of": "Judge", "minImprovement": 0.6}, "Fail", "0.40 [0.30, 0.50]"),
    ],
)
def test_a_rule_may_be_about_the_worst_group_or_what_was_retained(
    rule: dict[str, Any], verdict: str, words: str
) -> None:
    evaluation = SCORES.model_copy(
        update={"groups": GROUPS, "retention": RETENTION, "judge": JUDGE, "benchmarks": BENCHMARKS}
    )
    decided = decide(gate(rule), evaluation)
    assert decided.decision == verdict and words in decided.message


def test_a_judge_that_ignores_the_answers_decides_nothing() -> None:
    blind = JUDGE.model_copy(update={"is_blind": True})
    decided = decide(gate({"of": "Judge", "min": 0.5}), SCORES.model_copy(update={"judge": blind}))
    assert decided.decision == "Inconclusive" and "use another judge" in decided.message


def test_a_rule_about_a_benchmark_that_is_not_scored_is_warned_of() -> None:
    configured = Evaluation(benchmarks=[Benchmark(name="faq", claim=ClaimPath(name="c", path="p"))])
    rule = {"of": "Benchmark", "benchmark": "fqa", "min": 0.5}
    (sentence,) = warnings(gate(rule), Objective.SFT, 500, configured)
    assert "spec.evaluation.benchmarks has no fqa" in sentence
    assert warnings(gate({**rule, "benchmark": "faq"}), Objective.SFT, 500, configured) == []


@pytest.mark.parametrize("of", ["WorstGroup", "Retention", "GroupGap", "Judge"])
def test_a_rule_about_rows_that_were_not_scored_is_inconclusive_and_warned_of(of: str) -> None:
    decided = decide(gate({"of": of, "maxRegression": 0.1}), SCORES)
    assert decided.decision == "Inconclusive" and "scored: nothing" in decided.message
    (sentence,) = warnings(gate({"of": of, "maxRegression": 0.1}), Objective.SFT, 500, Evaluation())
    assert f"spec.gate.rules: of: {of} needs spec.evaluation.{NEEDS[Rows(of)].alias}" in sentence
    judge = Judge(url="https://judge.example.com/v1", model="judge")
    configured = Evaluation(group_by="language", retention=Retention(), judge=judge)
    assert warnings(gate({"of": of, "metric": "loss", "maxRegression": 0.1}), Objective.SFT, 500, configured) == []


def scored(**spec: Any) -> FakeCluster:
    """A cluster in which the job is complete: improvement 0.62 [0.55, 0.69] on 80 rows."""
    cluster = finishing(**spec)
    cluster.start()
    cluster.complete(make.finished())
    cluster.converge()
    return cluster


def test_the_warnings_reach_condition_and_events_before_training() -> None:
    cluster = training(gate={"rules": [{"metric": "exactMatch", "maxRegression": 0.02}]})
    assert cluster.condition("Validated") == ("True", "ValidatedWithWarnings")
    assert "4,906 test rows" in cluster.message("Validated")
    assert cluster.reasons().count("PlanWarning") == 1
    assert "80 test rows can show" in cluster.status["gate"]["expectation"][0]
    assert "decision" not in cluster.status["gate"]
    assert cluster.condition("Promotable") == ("Unknown", "NotScoredYet")


@pytest.mark.parametrize(
    ("least", "status", "reason", "event"),
    [
        (0.5, "True", "GatePassed", "GatePassed"),
        (0.6, "False", "GateInconclusive", "GateInconclusive"),
        (0.7, "False", "GateFailed", "GateFailed"),
    ],
)
def test_the_condition_says_what_decided(least: float, status: str, reason: str, event: str) -> None:
    cluster = scored(gate={"rules": [{"minImprovement": least}]})
    assert cluster.condition("Promotable") == (status, reason)
    assert "0.62 [0.55, 0.69], 80 rows" in cluster.message("Promotable")
    assert cluster.condition("Complete") == ("True", "Succeeded"), "the run itself went well"
    assert cluster.reasons()[-2:] == ["Succeeded", event]
    assert cluster.status["gate"]["rules"][0]["verdict"] in reason or status == "True"


def test_an_edited_gate_decides_again_without_a_run() -> None:
    cluster = scored(gate={"rules": [{"minImprovement": 0.7}]})
    jobs, digest = cluster.jobs(), cluster.status["preparedSpec"]
    assert cluster.condition("Promotable") == ("False", "GateFailed")
    cluster.edit(gate={"rules": [{"minImprovement": 0.5}]})
    cluster.converge()
    assert cluster.condition("Promotable") == ("True", "GatePassed")
    assert cluster.status["gate"]["decision"] == "Pass"
    assert cluster.reasons()[-1] == "GatePassed"
    assert (cluster.jobs(), cluster.status["preparedSpec"]) == (jobs, digest)
    assert cluster.status["observedGeneration"] == cluster.resource["metadata"]["generation"]
    cluster.edit(gate=None)
    cluster.converge()
    assert cluster.condition("Promotable") == ("True", "NoGate")
    assert "gate" not in cluster.status and cluster.jobs() == jobs


def test_a_gate_may_be_edited_while_the_job_runs() -> None:
    cluster = training(gate={"rules": [{"minImprovement": 0.7}]})
    cluster.edit(gate={"rules": [{"minImprovement": 0.5}]})
    cluster.converge()
    assert cluster.jobs() == ["prepare-1", "train-1"], "nothing is prepared or trained again"


def test_a_job_that_was_not_scored_is_not_promotable_with_a_gate() -> None:
    cluster = finishing(gate={"rules": [{"min": 0.5}]})
    done = make.finished().artifact
    running = make.verdict("BadInput", "the reward function raised").model_copy(update={"artifact": done})
    cluster.fail(64, running)
    cluster.converge()
    assert cluster.condition("Complete") == ("True", "NotScored")
    assert cluster.condition("Promotable") == ("Unknown", "NotScored")
    assert "the reward function raised" in cluster.message("Promotable")
