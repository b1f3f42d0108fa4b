"""Argo CD's view of Hone's resources: its script of Lua over the golden cases, as Argo CD calls it."""

import json
import subprocess
from typing import Any

import pytest
import yaml

from dev.cluster import deps
from dev.uv import ROOT
from hone.core.observed import Object
from tests.golden.cases import inputs, plan_of

SCRIPTS = yaml.safe_load((ROOT / "examples/gitops/argocd-cm.yaml").read_text())["data"]
STATES = {"Stalled": "Degraded", "Reconciling": "Progressing", "Ready": "Healthy"}
"""Argo CD's names for the condition that is True."""


@pytest.fixture(scope="session")
def lua() -> str:
    """An interpreter of Lua 5.1, which is what Argo CD's implements; installed from Debian where it is missing."""
    deps.ensure(["lua5.1"])
    return "lua5.1"


def literal(value: Any) -> str:
    """A value as Lua has it. Nulls are left out, as Argo CD does."""
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"[{literal(key)}]={literal(each)}" for key, each in value.items() if each is not None) + "}"
        )
    if isinstance(value, list):
        return "{" + ",".join(literal(each) for each in value) + "}"
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    return json.dumps(value)


def health(lua: str, *objects: Object) -> list[tuple[str, str]]:
    """Status and message of each object."""
    lines = []
    for obj in objects:
        script = SCRIPTS[f"resource.customizations.health.hone.dev_{obj['kind']}"]
        lines += ["do", "local function health(obj)", script, "end", f"local shown = health({literal(obj)})"]
        lines += [r'io.write(shown.status, "\0", shown.message, "\0")', "end"]
    result = subprocess.run([lua, "-"], input="\n".join(lines), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    parts = result.stdout.split("\0")[:-1]
    return [*zip(parts[::2], parts[1::2], strict=True)]


def reconciled() -> list[Object]:
    """The resources of the golden cases, with the status that the operator gives them."""
    resources = []
    for _, case in inputs():
        status = plan_of(case.resource, case.cluster).status or case.resource.get("status")
        if status:
            generation = status.get("observedGeneration")
            metadata = {**case.resource["metadata"], "generation": generation}
            resources.append({**case.resource, "metadata": metadata, "status": status})
    return resources


def expected(obj: Object) -> tuple[str, str]:
    """What Argo CD is to show, from the conditions of kstatus."""
    conditions = {each["type"]: each for each in obj["status"]["conditions"]}
    for kind, state in STATES.items():
        if conditions[kind]["status"] == "True":
            return state, conditions[kind].get("message") or conditions[kind]["reason"]
    return "Suspended", conditions["Ready"].get("message") or conditions["Ready"]["reason"]


def test_the_golden_cases(lua: str) -> None:
    objects = reconciled()
    want = [expected(obj) for obj in objects]
    assert health(lua, *objects) == want
    for kind in ("FineTuneJob", "ModelDeployment"):
        states = {state for obj, (state, _) in zip(objects, want, strict=True) if obj["kind"] == kind}
        assert states >= {"Degraded", "Progressing", "Healthy"}, kind
    assert "Suspended" in {state for state, _ in want}


NEW: Object = {"kind": "FineTuneJob", "metadata": {"generation": 2}}
READY = [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": ""}]


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (None, ("Progressing", "the operator has not looked at it yet")),
        ({}, ("Progressing", "the operator has not looked at it yet")),
        (
            {"observedGeneration": 1, "conditions": READY},
            ("Progressing", "the operator has not looked at the newest change yet"),
        ),
        ({"observedGeneration": 2, "conditions": READY}, ("Healthy", "Succeeded")),
        ({"observedGeneration": 2, "conditions": []}, ("Progressing", "the operator has not looked at it yet")),
    ],
)
def test_what_the_operator_has_not_seen(lua: str, status: Any, want: tuple[str, str]) -> None:
    assert health(lua, {**NEW, "status": status}) == [want]
