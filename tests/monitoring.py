"""What the chart's alerts and dashboards ask Prometheus for."""

import json
import re

import yaml

from dev.uv import ROOT

MONITORING = ROOT / "charts/hone/monitoring"
RULES = MONITORING / "rules.yaml"
_VARIABLES = {"$namespace": ".*", "$name": ".*", "$__rate_interval": "5m"}
_METRIC = re.compile(r"\b(?:(?:hone(?!_dev_)|controller_runtime|workqueue|rest_client)_|vllm:)\w+")


def expressions() -> list[str]:
    """All queries, with the dashboards' variables replaced by what matches everything."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    queries = [rule["expr"] for group in groups for rule in group["rules"]]
    for path in sorted(MONITORING.glob("dashboards/*.json")):
        queries += [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    for name, value in _VARIABLES.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


def metrics() -> set[str]:
    """The names of all metrics in them."""
    return {name for query in expressions() for name in _METRIC.findall(query)}
