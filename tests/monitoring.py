"""What the chart's alerts and dashboards, and the examples of autoscaling, ask Prometheus for."""

import json
import re

import yaml

from dev.uv import ROOT

MONITORING = ROOT / "charts/hone/monitoring"
AUTOSCALING = ROOT / "examples/autoscaling"
RULES = MONITORING / "rules.yaml"
_VARIABLES = {"$namespace": ".*", "$name": ".*", "$__rate_interval": "5m"}
_METRIC = re.compile(r"\b(?:(?:hone(?!_dev_)|controller_runtime|workqueue|rest_client|leader_election)_|vllm:)\w+")


def expressions() -> list[str]:
    """All queries, with the dashboards' variables replaced by what matches everything."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    queries = [rule["expr"] for group in groups for rule in group["rules"]]
    for path in sorted(MONITORING.glob("dashboards/*.json")):
        queries += [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    for name, value in _VARIABLES.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


def scaling() -> list[str]:
    """The queries by which the examples of autoscaling choose the number of pods, as Prometheus gets them."""
    keda = yaml.safe_load((AUTOSCALING / "keda.yaml").read_text())
    queries = [trigger["metadata"]["query"] for trigger in keda["spec"]["triggers"]]
    for rule in yaml.safe_load((AUTOSCALING / "prometheus-adapter.yaml").read_text())["rules"]["custom"]:
        series = rule["seriesQuery"].partition("{")[0]
        matchers = 'namespace="default",pod=~"sentiment-1|sentiment-2"'
        values = {"<<.Series>>": series, "<<.LabelMatchers>>": matchers, "<<.GroupBy>>": "pod"}
        query = rule["metricsQuery"]
        for name, value in values.items():
            query = query.replace(name, value)
        queries += [rule["seriesQuery"], query]
    return queries


def metrics() -> set[str]:
    """The names of all metrics in them."""
    return {name for query in (*expressions(), *scaling()) for name in _METRIC.findall(query)}
