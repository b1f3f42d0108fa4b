"""The chart's alerts, by Prometheus' own tool: each fires where it should and is over where the cause is."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.monitoring import RULES, scaling

JOB = 'namespace="team", name="bot"'
CONTROLLER = 'controller="finetunejob"'


class Case(NamedTuple):
    """What is scraped each minute, and when, in minutes, an alert fires and does not.

    Series are in promtool's notation: `1x9` is a 1 and nine more, `stale` their end, `0+5x9` grows by 5.
    """

    alert: str
    series: dict[str, str]
    fires: int
    over: int


CASES = [
    Case(
        "HoneJobStalled",
        {f'hone_finetunejob_condition{{type="Stalled", reason="InvalidSpec", {JOB}}}': "1x9 stale"},
        6,
        11,
    ),
    Case(
        "HoneJobBudgetReached",
        {f'hone_finetunejob_condition{{type="Stalled", reason="BudgetExhausted", {JOB}}}': "1x9 stale"},
        2,
        11,
    ),
    Case(
        "HoneJobNoCapacity",
        {
            f'hone_finetunejob_condition{{type="Reconciling", reason="Queued", {JOB}}}': "1x69 stale",
            # By its author: spec.suspend is true.
            'hone_finetunejob_condition{type="Reconciling", reason="Suspended", namespace="team", name="b"}': "1x100",
        },
        61,
        71,
    ),
    Case(
        "HoneJobStuck",
        {
            f'hone_finetunejob_phase{{phase="Training", {JOB}}}': "1x200",
            f"hone_finetunejob_step{{{JOB}}}": "0+1x9 10x90 11+1x99",
        },
        85,
        130,
    ),
    Case("HoneJobFailingAgain", {f"hone_finetunejob_retries{{{JOB}}}": "0x9 1x9 3x200"}, 30, 160),
    Case("HoneJobFailed", {f'hone_finetunejob_phase{{phase="Failed", {JOB}}}': "0x4 1x9 stale"}, 6, 16),
    Case(
        "HoneServerNotReady",
        {
            f"hone_modeldeployment_replicas{{{JOB}}}": "2x60",
            f"hone_modeldeployment_ready_replicas{{{JOB}}}": "0x29 2x30",
        },
        20,
        40,
    ),
    Case(
        "HoneServersMissing",
        {
            f"hone_modeldeployment_replicas{{{JOB}}}": "2x80",
            f"hone_modeldeployment_ready_replicas{{{JOB}}}": "1x49 2x30",
        },
        40,
        60,
    ),
    Case(
        "HoneDeploymentStalled",
        {f'hone_modeldeployment_condition{{type="Stalled", reason="NameConflict", {JOB}}}': "1x9 stale"},
        6,
        11,
    ),
    Case(
        "HoneOperatorErrors",
        {f"controller_runtime_reconcile_errors_total{{{CONTROLLER}}}": "0+30x30 900x30"},
        25,
        50,
    ),
    Case("HoneOperatorBug", {f"controller_runtime_reconcile_panics_total{{{CONTROLLER}}}": "0x9 1x200"}, 15, 90),
    Case(
        "HoneOperatorSlow",
        {'workqueue_longest_running_processor_seconds{name="finetunejob"}': "0+60x20 0x10"},
        12,
        25,
    ),
    Case(
        "HoneOperatorNoLeader",
        {
            'leader_election_master_status{name="hone", job="hone", instance="a"}': "1x4 0x20 1x10",
            'hone_finetunejobs{phase="Pending", job="hone", instance="a"}': "0x40",
            'leader_election_master_status{name="other", job="other", instance="b"}': "1x40",
        },
        15,
        30,
    ),
    Case("HoneOperatorAbsent", {'hone_finetunejobs{phase="Pending"}': "0x4 stale _x20 0x10"}, 20, 30),
]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_rules_are_valid(promtool: str) -> None:
    checked = run(promtool, "check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_queries_of_autoscaling_count_what_waits_at_stable_servers(promtool: str, tmp_path: Path) -> None:
    """Three requests at one pod, five at another; those at a candidate, and at other servers, are not counted."""
    ours = 'namespace="default", hone_dev_deployment="sentiment"'
    waiting = {
        f'vllm:num_requests_waiting{{{ours}, hone_dev_role="stable", pod="sentiment-1"}}': "3x9",
        f'vllm:num_requests_waiting{{{ours}, hone_dev_role="stable", pod="sentiment-2"}}': "5x9",
        f'vllm:num_requests_waiting{{{ours}, hone_dev_role="candidate", pod="sentiment-candidate-1"}}': "7x9",
        'vllm:num_requests_waiting{namespace="other", hone_dev_deployment="sentiment", pod="sentiment-1"}': "9x9",
    }
    by_deployment, _, by_pod = scaling()
    pods = [{"labels": f'{{pod="sentiment-{number}"}}', "value": value} for number, value in ((1, 3), (2, 5))]
    expected = [(by_deployment, [{"labels": "{}", "value": 8}]), (by_pod, pods)]
    tests = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in waiting.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": samples} for query, samples in expected],
    }
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps({"tests": [tests]}))
    ended = run(promtool, "test", "rules", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_and_is_over(case: Case, promtool: str, tmp_path: Path) -> None:
    def at(minute: int, firing: int) -> dict[str, object]:
        expression = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}}) or vector(0)'
        samples = [{"labels": "{}", "value": firing}]
        return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}

    tests = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [at(case.fires, 1), at(case.over, 0)],
    }
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [tests]}))
    ended = run(promtool, "test", "rules", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_a_case() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert sorted(rule["alert"] for group in groups for rule in group["rules"]) == sorted(case.alert for case in CASES)
