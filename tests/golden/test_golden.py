"""Golden cases: `<case>/cr.yaml` + `<case>/observed.yaml` -> `<case>/plan.yaml`. They read as the specification.

cr.yaml is the resource with the status it had, and says in its first line what the case is. observed.yaml holds the
time, the objects that exist (what is not there is seen as absent), the pods, and what the trainer told. After a change
that is meant: `pytest tests/golden --update-golden`, then read the diff.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.contract.progress import Progress
from hone.core.children import ref_of
from hone.core.kinds import KINDS
from hone.core.observed import Object, Observed, Pod, ProgressReading, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings
from hone.core.subject import Subject
from hone.core.times import parse

HERE = Path(__file__).parent
CASES = sorted(path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/*/cr.yaml"))


class Dumper(yaml.SafeDumper):
    """YAML without anchors, so that each part of a plan can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def observe(subject: Subject, seen: dict[str, Any]) -> Observed:
    """What the runtime would have read, were the cluster as `seen` says."""
    exists = {ref_of(obj): obj for obj in seen.get("objects") or []}
    fetched: dict[Ref, Object | None] = {}
    kind = KINDS[subject.resource["kind"]]
    while new := set(kind.refs(subject, fetched)) - set(fetched):
        fetched |= {ref: exists.get(ref) for ref in new}
    assert set(exists) <= set(fetched), f"never asked for: {set(exists) - set(fetched)}"
    pods = tuple(Pod(pod.get("raw", pod), pod.get("gone", False)) for pod in seen.get("pods") or [])
    told = seen.get("progress")
    reading = None
    if told:
        progress = Progress.from_dict(told["progress"]) if "progress" in told else None
        reading = ProgressReading(told["podUid"], progress, told.get("error"))
    return Observed(fetched, pods, reading)


def changes(old: dict[str, Any], new: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a new status changes: its fields that differ, null for those that went, and of the conditions the same."""
    if new is None:
        return None
    found = {key: new.get(key) for key in {**old, **new} if new.get(key) != old.get(key)}
    if "conditions" in found:
        before = old.get("conditions", [])
        found["conditions"] = [condition for condition in new["conditions"] if condition not in before]
    return found


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
    kept = {key: value for key, value in parts.items() if value not in ([], None)}
    return yaml.dump(kept, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str, update_golden: bool) -> None:
    folder = HERE / case
    resource = yaml.safe_load((folder / "cr.yaml").read_text())
    seen = yaml.safe_load((folder / "observed.yaml").read_text())
    now = parse(seen["now"])
    subject = KINDS[resource["kind"]].subject(resource, Settings())
    plan = KINDS[resource["kind"]].reconcile(subject, observe(subject, seen), now)
    text = as_yaml(resource.get("status") or {}, plan)
    wanted = folder / "plan.yaml"
    if update_golden:
        wanted.write_text(text)
    assert wanted.exists(), "no plan.yaml: run with --update-golden and read what it wrote"
    assert text == wanted.read_text()


def test_there_are_cases() -> None:
    assert len(CASES) >= 25
