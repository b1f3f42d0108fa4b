"""Writes the chart's Grafana dashboards from a table of their panels: `python -m dev.dashboards [--check]`."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.uv import ROOT

DIRECTORY = ROOT / "charts/hone/monitoring/dashboards"
_WIDTH, _HEIGHT = 8, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A graph, or a table of the newest values.

    Attributes:
        title: what it shows.
        queries: PromQL, by legend.
        unit: Grafana's name of the unit; empty: a number.
        kind: Grafana's type of panel.
        maximum: of the axis.
    """

    title: str
    queries: dict[str, str]
    unit: str = ""
    kind: str = "timeseries"
    maximum: float | None = None


@dataclass(frozen=True)
class Dashboard:
    """A page of panels.

    Attributes:
        title: its name.
        variables: label by the metric whose values it offers, which the queries use as `$name`.
        panels: in reading order, three in a row.
    """

    title: str
    variables: dict[str, str]
    panels: tuple[Panel, ...]


_JOB = 'namespace=~"$namespace", name=~"$name"'
_PODS = 'namespace=~"$namespace", hone_dev_job=~"$name"'
_SERVERS = 'namespace=~"$namespace", hone_dev_deployment=~"$name"'


def _quantile(share: float, metric: str) -> str:
    rate = f"rate({metric}_bucket{{{_SERVERS}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (le) ({rate}))"


def _rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


DASHBOARDS = {
    "fleet": Dashboard(
        "Hone / fleet",
        {"namespace": "hone_finetunejob_phase"},
        (
            Panel("Jobs by phase", {"{{phase}}": "sum by (phase) (hone_finetunejobs)"}),
            Panel("ModelDeployments by phase", {"{{phase}}": "sum by (phase) (hone_modeldeployments)"}),
            Panel(
                "GPU hours of jobs that are shown",
                {"{{namespace}}": 'sum by (namespace) (hone_finetunejob_gpu_seconds{namespace=~"$namespace"}) / 3600'},
            ),
            Panel(
                "Why jobs wait",
                {
                    "{{namespace}}/{{name}} {{type}} {{reason}}": "hone_finetunejob_condition"
                    '{namespace=~"$namespace"} == 1'
                },
                kind="table",
            ),
            Panel(
                "Failures that counted against the limit",
                {"{{namespace}}/{{name}}": 'hone_finetunejob_retries{namespace=~"$namespace"} > 0'},
                kind="table",
            ),
            Panel(
                "Servers that are not ready",
                {
                    "{{namespace}}/{{name}}": 'hone_modeldeployment_replicas{namespace=~"$namespace"}'
                    " - on (namespace, name) hone_modeldeployment_ready_replicas > 0"
                },
                kind="table",
            ),
            Panel(
                "Reconciliations",
                {
                    "{{controller}} {{result}}": "sum by (controller, result)"
                    " (rate(controller_runtime_reconcile_total[$__rate_interval]))"
                },
                "ops",
            ),
            Panel("Waiting keys", {"{{name}}": "sum by (name) (workqueue_depth)"}),
            Panel(
                "Requests to the API server",
                {"{{method}} {{code}}": "sum by (method, code) (rate(rest_client_requests_total[$__rate_interval]))"},
                "ops",
            ),
        ),
    ),
    "job": Dashboard(
        "Hone / FineTuneJob",
        {"namespace": "hone_finetunejob_phase", "name": "hone_finetunejob_phase"},
        (
            Panel(
                "Progress",
                {"{{name}}": f"hone_finetunejob_step{{{_JOB}}} / hone_finetunejob_total_steps{{{_JOB}}}"},
                "percentunit",
                maximum=1,
            ),
            Panel(
                "Loss",
                {
                    "training, rank {{rank}}": f"hone_train_loss{{{_PODS}}}",
                    "validation": f"max(hone_train_eval_loss{{{_PODS}}})",
                },
            ),
            Panel("Reward", {"rank {{rank}}": f"hone_train_reward{{{_PODS}}}"}),
            Panel("Tokens per second", {"{{name}}": f"hone_finetunejob_tokens_per_second{{{_JOB}}}"}),
            Panel("Duration of a step", {"rank {{rank}}": f"hone_train_step_duration_seconds{{{_PODS}}}"}, "s"),
            Panel("Peak GPU memory", {"rank {{rank}}": f"hone_train_gpu_memory_peak_bytes{{{_PODS}}}"}, "bytes"),
            Panel("Learning rate", {"rank 0": f'hone_train_learning_rate{{{_PODS}, rank="0"}}'}),
            Panel("Gradient norm", {"rank 0": f'hone_train_grad_norm{{{_PODS}, rank="0"}}'}),
            Panel(
                "Step of the last checkpoint",
                {"rank {{rank}}": f"hone_train_checkpoint_step{{{_PODS}}}"},
            ),
        ),
    ),
    "serving": Dashboard(
        "Hone / ModelDeployment",
        {"namespace": "hone_modeldeployment_phase", "name": "hone_modeldeployment_phase"},
        (
            Panel(
                "Servers",
                {
                    "exist": f"hone_modeldeployment_replicas{{{_JOB}}}",
                    "ready": f"hone_modeldeployment_ready_replicas{{{_JOB}}}",
                },
            ),
            Panel(
                "Requests",
                {
                    "running {{pod}}": f"vllm:num_requests_running{{{_SERVERS}}}",
                    "waiting {{pod}}": f"vllm:num_requests_waiting{{{_SERVERS}}}",
                },
            ),
            Panel(
                "Answers by reason of their end",
                {"{{finished_reason}}": _rate("vllm:request_success_total", _SERVERS, "finished_reason")},
                "reqps",
            ),
            Panel(
                "Time to the first token",
                {f"p{round(100 * q)}": _quantile(q, "vllm:time_to_first_token_seconds") for q in (0.5, 0.95, 0.99)},
                "s",
            ),
            Panel(
                "Time between tokens",
                {f"p{round(100 * q)}": _quantile(q, "vllm:inter_token_latency_seconds") for q in (0.5, 0.95, 0.99)},
                "s",
            ),
            Panel(
                "Tokens per second",
                {
                    "prompts": _rate("vllm:prompt_tokens_total", _SERVERS, "namespace"),
                    "answers": _rate("vllm:generation_tokens_total", _SERVERS, "namespace"),
                },
            ),
            Panel(
                "Cache of keys and values in use",
                {"{{pod}}": f"vllm:kv_cache_usage_perc{{{_SERVERS}}}"},
                "percentunit",
                maximum=1,
            ),
            Panel(
                "Time in the queue",
                {f"p{round(100 * q)}": _quantile(q, "vllm:request_queue_time_seconds") for q in (0.5, 0.95)},
                "s",
            ),
            Panel("Preempted requests", {"{{pod}}": _rate("vllm:num_preemptions_total", _SERVERS, "pod")}, "reqps"),
        ),
    ),
}


def rendered(name: str, dashboard: Dashboard) -> str:
    """A dashboard in Grafana's JSON."""
    body = {
        "uid": f"hone-{name}",
        "title": dashboard.title,
        "tags": ["hone"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), *(_variable(*each) for each in dashboard.variables.items())]},
        "panels": [_panel(index, panel) for index, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(body, indent=2) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({metric}, {label})", "refId": label},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    is_table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend,
            **({"instant": True, "format": "table"} if is_table else {}),
        }
        for number, (legend, expression) in enumerate(panel.queries.items())
    ]
    defaults = {"unit": panel.unit or "short", "min": 0} | ({"max": panel.maximum} if panel.maximum else {})
    return {
        "id": index + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": index % 3 * _WIDTH, "y": index // 3 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def main() -> int:
    """Write the files, or check that they are as they would be written; returns 1 where they are not."""
    parser = argparse.ArgumentParser(prog="python -m dev.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    check = parser.parse_args().check
    DIRECTORY.mkdir(exist_ok=True)
    stale = []
    for name, dashboard in DASHBOARDS.items():
        path, text = DIRECTORY / f"{name}.json", rendered(name, dashboard)
        if (path.read_text() if path.exists() else "") != text:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                Path(path).write_text(text)
    verb = "differs from what dev/dashboards.py writes" if check else "written"
    for name in stale:
        print(f"{name}: {verb}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
