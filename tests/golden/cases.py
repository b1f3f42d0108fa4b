"""Golden cases as data: what each one's resource and cluster are, what it expects, and what the core plans.

A whole case is a folder: cr.yaml is the resource with the status it had, observed.yaml holds the time, the objects that
exist (what is not there is seen as absent), the pods, the nodes with GPUs, the jobs of the namespace (`peers`), and the
progress that the trainer reported, and plan.yaml the Plan: objects, what changes in status, events, the requeue.

All other cases are a file each: `base` names a whole case of the same kind; `cr` and `observed` say what differs from
it (see differences.py), nothing where they are left out. `plan` is whole, but for its objects: `$base: <case>/<kind>`
stands for the object of that kind in that whole case's Plan, and what follows is what differs from it.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml

from hone.contract.progress import Progress
from hone.core.children import ref_of
from hone.core.kinds import KINDS
from hone.core.modeldeployment.resources import access
from hone.core.names import UID_LABEL
from hone.core.nodes import node_of
from hone.core.observed import Object, Observed, Pod, ProgressReading, Ref
from hone.core.plan import Plan
from hone.core.settings import Settings
from hone.core.subject import Subject
from hone.core.times import parse
from tests.golden.differences import difference, patched, same
from tests.golden.layout import dump

HERE = Path(__file__).parent
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Parts = dict[str, Any]
"""A Plan as plain data: create, apply, delete, statusChanges, events, requeueAfter; what is empty is left out."""


class Inputs(NamedTuple):
    """What a decision is made from.

    Attributes:
        resource: the FineTuneJob or ModelDeployment, with the status that it had.
        cluster: `now`, the `objects` that exist, the `pods`, and the `progress` that the trainer reported.
    """

    resource: Object
    cluster: dict[str, Any]


def whole_cases(root: Path = HERE) -> list[str]:
    """The names of the cases that are folders, such as `finetunejob/01-new`."""
    return sorted(path.parent.relative_to(root).as_posix() for path in root.glob("*/*/cr.yaml"))


def inputs(root: Path = HERE) -> Iterator[tuple[str, Inputs]]:
    """The name and the inputs of each case below `root`; whole cases come first."""
    for name in whole_cases(root):
        yield name, Inputs(_load(root / name / "cr.yaml"), _load(root / name / "observed.yaml"))
    for path in sorted(root.glob("*/*.yaml")):
        case, base = _load(path), path.parent / _load(path)["base"]
        parts = (patched(_load(base / f"{part}.yaml"), case.get(part, {})) for part in ("cr", "observed"))
        yield path.relative_to(root).with_suffix("").as_posix(), Inputs(*parts)


def expected(name: str, root: Path = HERE) -> Parts:
    """The Plan that a case expects, in full; empty where none is recorded."""
    if (root / name).is_dir():
        path = root / name / "plan.yaml"
        return (_load(path) or {}) if path.exists() else {}
    plan: Parts = _load(root / f"{name}.yaml").get("plan") or {}
    bases = _objects((root / name).parent)
    # A base that is gone gives an object without most of its fields, which is no Plan's: the case fails.
    return _with_objects(plan, lambda obj: patched(bases.get(obj.pop("$base"), {}), obj) if "$base" in obj else obj)


def record(name: str, plan: Parts, root: Path = HERE) -> None:
    """Write the Plan that a case expects from now on; its inputs and comments stay as they are."""
    if (root / name).is_dir():
        (root / name / "plan.yaml").write_text(dump(plan))
        return
    path, bases = root / f"{name}.yaml", _objects((root / name).parent)
    before, _, _ = path.read_text().partition("\nplan:")
    path.write_text(f"{before.rstrip()}\n{dump({'plan': _with_objects(plan, lambda obj: _shortest(obj, bases))})}")


def _shortest(obj: Object, bases: dict[str, Object]) -> Object:
    """An object as its difference from the nearest base; whole where that is shorter."""
    same_kind = {address: base for address, base in bases.items() if base["kind"] == obj["kind"]}
    patches = [
        {"$base": address, **({} if same(base, obj) else difference(base, obj))} for address, base in same_kind.items()
    ]
    return min((patch for patch in (*patches, obj) if "$patch" not in patch), key=lambda patch: len(dump(patch)))


def _objects(folder: Path) -> dict[str, Object]:
    """The objects in the Plans of the whole cases in `folder`, by `<case>/<kind>`."""
    root = folder.parent
    names = [name for name in whole_cases(root) if (root / name).parent == folder]
    return {f"{Path(name).name}/{obj['kind']}": obj for name in names for obj in _objects_of(expected(name, root))}


def _objects_of(plan: Parts) -> list[Object]:
    return [*plan.get("create", []), *(apply["body"] for apply in plan.get("apply", []))]


def _with_objects(plan: Parts, change: Callable[[Object], Object]) -> Parts:
    """A Plan with `change` applied to each object that it writes."""
    changed = dict(plan)
    if "create" in plan:
        changed["create"] = [change(dict(obj)) for obj in plan["create"]]
    if "apply" in plan:
        changed["apply"] = [{**apply, "body": change(dict(apply["body"]))} for apply in plan["apply"]]
    return changed


def _load(path: Path) -> Any:
    return _parsed(path.read_text())


@functools.cache
def _parsed(text: str) -> Any:
    return yaml.load(text, LOADER)


def plan_of(resource: Object, cluster: dict[str, Any]) -> Plan:
    """The Plan for a case's inputs. Servers have a short guard: no case changes with the text of the real one."""
    subject = subject_of(resource)
    with mock.patch.object(access, "SOURCE", "(hone/guard/access.py)"):
        return KINDS[resource["kind"]].reconcile(subject, observe(subject, cluster), parse(cluster["now"]))


def subject_of(resource: Object) -> Subject:
    """The case's resource as decisions see it, by the operator's default settings."""
    subject: Subject = KINDS[resource["kind"]].subject(resource, Settings())
    return subject


def observe(subject: Subject, cluster: dict[str, Any]) -> Observed:
    """What the runtime would have read, were the cluster as `cluster` says.

    Raises:
        AssertionError: an object of ours is there that the core never reads; the case would say something untrue.
            What users have made is there in all steps, and read in those that need it.
    """
    existing = {ref_of(obj): obj for obj in cluster.get("objects") or []}
    fetched: dict[Ref, Object | None] = {}
    kind = KINDS[subject.resource["kind"]]
    while new := set(kind.refs(subject, fetched)) - set(fetched):
        fetched |= {ref: existing.get(ref) for ref in new}
    ours = {ref for ref, obj in existing.items() if UID_LABEL in (obj["metadata"].get("labels") or {})}
    assert ours <= set(fetched), f"never read: {ours - set(fetched)}"
    pods = tuple(Pod(pod.get("raw", pod), pod.get("gone", False)) for pod in cluster.get("pods") or [])
    nodes = tuple(node_of(node) for node in cluster.get("nodes") or ()) if kind.reads_nodes(subject) else None
    peers = tuple(cluster.get("peers") or ()) if kind.reads_peers(subject) else None
    return Observed(fetched, pods, _reading(cluster.get("progress")), nodes or None, peers)


def _reading(answer: dict[str, Any] | None) -> ProgressReading | None:
    if not answer:
        return None
    progress = Progress.from_dict(answer["progress"]) if "progress" in answer else None
    return ProgressReading(answer["podUid"], progress, answer.get("error"))


def parts(old: dict[str, Any], plan: Plan) -> Parts:
    """The Plan as plain data, given the status that the resource had."""
    every = {
        "create": list(plan.create),
        "apply": [{"fieldManager": apply.field_manager, "body": apply.body} for apply in plan.apply],
        "delete": [{"ref": asdict(delete.ref), "uid": delete.uid} for delete in plan.delete],
        "statusChanges": _changes(old, plan.status),
        "events": [f"{event.type} {event.reason}: {event.message}" for event in plan.events],
        "requeueAfter": plan.requeue_after,
    }
    return {key: value for key, value in every.items() if value not in ([], None)}


def _changes(old: dict[str, Any], new: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a new status changes: its fields that differ, null for those that went, and of the conditions the same."""
    if new is None:
        return None
    changed = {key: new.get(key) for key in {**old, **new} if new.get(key) != old.get(key)}
    if "conditions" in changed:
        before = old.get("conditions", [])
        changed["conditions"] = [condition for condition in new["conditions"] if condition not in before]
    return changed
