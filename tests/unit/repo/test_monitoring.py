"""Alerts and dashboards ask for metrics that exist."""

import re

from dev.dashboards import DASHBOARDS, DIRECTORY, rendered
from dev.uv import ROOT
from hone.runtime.metrics import Metrics
from tests.monitoring import metrics

TRAINER = ROOT / "trainer-image/src/hone_trainer/launcher/metrics.py"
STATUS = {"phase": "Training", "progress": {"step": 1, "totalSteps": 2, "loss": "1", "reward": "1"}}


def exposed() -> set[str]:
    """The operator's and the trainer's metrics, by the names under which Prometheus has them."""
    operator = Metrics()
    operator.controller("finetunejob", 1)
    operator.resources.observe("FineTuneJob", "ns", "job", {"status": STATUS})
    names = set(re.findall(r"^# TYPE (\S+) ", operator.text().decode(), re.MULTILINE))
    return names | set(re.findall(r'"(hone_train_\w+)"', TRAINER.read_text()))


def test_every_metric_of_ours_exists() -> None:
    ours = {name for name in metrics() if not name.startswith("vllm:")}
    assert len(ours) > 15
    assert ours <= exposed()


def test_the_dashboards_are_those_of_the_table() -> None:
    assert {path.stem: path.read_text() for path in DIRECTORY.glob("*.json")} == {
        name: rendered(name, dashboard) for name, dashboard in DASHBOARDS.items()
    }
