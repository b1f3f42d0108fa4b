"""What the demo shows and says, without a cluster."""

import io
from pathlib import Path
from typing import Any

import pytest

from dev import demo
from dev.cluster import paths
from dev.watch import Display, plan_lines, progress_line, score_lines

TRAINING = {
    "phase": "Training",
    "progress": {"percent": 43, "step": 138, "totalSteps": 320, "loss": "0.412", "eta": "1m20s"},
}


def job(**status: Any) -> dict[str, Any]:
    return {"status": status}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({}, "Pending"),
        (job(phase="Preparing"), "Preparing"),
        (job(phase="Training"), "Training"),
        (job(**TRAINING), f"Training [{'#' * 12}{'.' * 16}]  43 %  step 138/320  loss 0.412  1m20s left"),
        # What the last attempt reported is no progress of the wait for the next one.
        (job(**{**TRAINING, "phase": "Queued"}), "Queued"),
    ],
    ids=["no status", "preparing", "training, nothing reported", "training", "waiting again"],
)
def test_the_progress_line(resource: dict[str, Any], expected: str) -> None:
    assert progress_line(resource) == expected


def test_off_a_terminal_a_line_comes_only_with_news() -> None:
    out = io.StringIO()
    display = Display(out)
    for line, worth in (("a 1", "a 0"), ("a 2", "a 0"), ("a 11", "a 1"), ("b", "b 1")):
        display.show(line, worth)
    display.end()
    assert out.getvalue() == "a 1\na 11\nb\n"


class Terminal(io.StringIO):
    """Takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_written_over_and_each_phase_keeps_its_last() -> None:
    out = Terminal()
    display = Display(out)
    for line, worth in (("a 1", "a 0"), ("a 2", "a 0"), ("b", "b 1")):
        display.show(line, worth)
    display.end()
    assert out.getvalue() == "\r\x1b[2Ka 1\r\x1b[2Ka 2\nb\n"


def test_the_plan_is_shown_with_reasons_and_warnings() -> None:
    plan = {
        "totalSteps": 320,
        "epochs": 8.0,
        "reasons": {"totalSteps": "8 epochs × 40 steps."},
        "warnings": ["Few rows."],
    }
    lines = list(plan_lines(job(plan=plan)))
    assert any("totalSteps" in line and line.endswith("320  8 epochs × 40 steps.") for line in lines)
    assert lines[-1] == "  warning: Few rows."


def test_scores_are_shown_with_their_intervals() -> None:
    figure = {"value": 0.5, "lower": 0.4, "upper": 0.6}
    score = {"metric": "exactMatch", "higherIsBetter": True, "samples": 80}
    scores = [{**score, "base": figure, "tuned": figure, "improvement": figure}]
    text = "\n".join(score_lines(job(evaluation={"scores": scores})))
    assert "exactMatch (higher is better, 80 rows)" in text
    assert text.count("0.500   [0.400, 0.600]") == 3


def test_a_cluster_of_ones_own_needs_a_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("REGISTRY", raising=False)
    with pytest.raises(demo.Failed, match="REGISTRY="):
        demo.own_cluster()
    monkeypatch.setenv("REGISTRY", "registry.example.com/team")
    assert demo.own_cluster() == tmp_path / "config"


@pytest.mark.parametrize("kubeconfig", [None, "", "local"])
def test_without_one_the_local_cluster_is_used(monkeypatch: pytest.MonkeyPatch, kubeconfig: str | None) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    if kubeconfig is not None:
        monkeypatch.setenv("KUBECONFIG", str(paths.kubeconfig()) if kubeconfig == "local" else kubeconfig)
    assert demo.own_cluster() is None


def test_why_a_job_failed_is_told_with_class_and_hint() -> None:
    kube = type("Kube", (), {"kubeconfig": Path("config")})()
    failure = {"class": "BadInput", "message": "spec.dataset.train: no rows", "hint": "Add rows."}
    conditions = [{"type": "Failed", "status": "True", "reason": "BadInput", "message": "no rows"}]
    resource = job(
        phase="Failed", conditions=conditions, attempts=[{"step": "prepare", "number": 1, "failure": failure}]
    )
    text = demo._why(kube, resource)
    assert "the FineTuneJob ended as Failed" in text
    assert "attempt prepare 1: BadInput: spec.dataset.train: no rows Hint: Add rows." in text
