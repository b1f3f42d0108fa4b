"""Golden cases: `<case>/cr.yaml` + `<case>/observed.yaml` -> `<case>/plan.yaml`. They read as the specification.

cr.yaml is the resource with the status it had, and says in its first line what the case is. observed.yaml holds the
time, the objects that exist (what is not there is seen as absent), the pods, and the progress that the trainer
reported. After an intended change: `pytest tests/golden --update-golden`, then read the diff.
"""

from dataclasses import asdict
from typing import Any

import pytest
import yaml

from hone.core.plan import Plan
from tests.golden.cases import HERE, inputs, plan_of

CASES = dict(inputs())


class Dumper(yaml.SafeDumper):
    """YAML without anchors, so that each part of a plan can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def changes(old: dict[str, Any], new: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a new status changes: its fields that differ, null for those that went, and of the conditions the same."""
    if new is None:
        return None
    changed = {key: new.get(key) for key in {**old, **new} if new.get(key) != old.get(key)}
    if "conditions" in changed:
        before = old.get("conditions", [])
        changed["conditions"] = [condition for condition in new["conditions"] if condition not in before]
    return changed


def as_yaml(old: dict[str, Any], plan: Plan) -> str:
    """The Plan as text; what is empty is left out, and what stays as it was in status."""
    parts = {
        "create": list(plan.create),
        "apply": [{"fieldManager": apply.field_manager, "body": apply.body} for apply in plan.apply],
        "delete": [{"ref": asdict(delete.ref), "uid": delete.uid} for delete in plan.delete],
        "statusChanges": changes(old, plan.status),
        "events": [f"{event.type} {event.reason}: {event.message}" for event in plan.events],
        "requeueAfter": plan.requeue_after,
    }
    filled = {key: value for key, value in parts.items() if value not in ([], None)}
    return yaml.dump(filled, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str, update_golden: bool) -> None:
    resource, cluster = CASES[case]
    text = as_yaml(resource.get("status") or {}, plan_of(resource, cluster))
    path = HERE / case / "plan.yaml"
    if update_golden:
        path.write_text(text)
    assert path.exists(), "no plan.yaml: run with --update-golden and read what it wrote"
    assert text == path.read_text()


def test_there_are_cases() -> None:
    assert len(CASES) >= 25
