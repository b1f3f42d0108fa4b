"""Golden cases as data: what each one's resource and cluster are, and what the core plans for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


class Inputs(NamedTuple):
    """What a decision is made from.

    Attributes:
        resource: the FineTuneJob or ModelDeployment, with the status that it had.
        cluster: `now`, the `objects` that exist, the `pods`, and the `progress` that the trainer reported.
    """

    resource: Object
    cluster: dict[str, Any]


def inputs(root: Path = HERE) -> Iterator[tuple[str, Inputs]]:
    """The name and the inputs of each case below `root`, in order."""
    for folder in sorted(path.parent for path in root.glob("*/*/cr.yaml")):
        resource, cluster = (yaml.safe_load((folder / name).read_text()) for name in ("cr.yaml", "observed.yaml"))
        yield folder.relative_to(root).as_posix(), Inputs(resource, cluster)


def plan_of(resource: Object, cluster: dict[str, Any]) -> Plan:
    """The Plan for a case's inputs."""
    subject = subject_of(resource)
    return KINDS[resource["kind"]].reconcile(subject, observe(subject, cluster), parse(cluster["now"]))


def subject_of(resource: Object) -> Subject:
    """The case's resource as decisions see it, by the operator's default settings."""
    subject: Subject = KINDS[resource["kind"]].subject(resource, Settings())
    return subject


def observe(subject: Subject, cluster: dict[str, Any]) -> Observed:
    """What the runtime would have read, were the cluster as `cluster` says.

    Raises:
        AssertionError: an object is there that the core never reads; the case would say something untrue.
    """
    existing = {ref_of(obj): obj for obj in cluster.get("objects") or []}
    fetched: dict[Ref, Object | None] = {}
    kind = KINDS[subject.resource["kind"]]
    while new := set(kind.refs(subject, fetched)) - set(fetched):
        fetched |= {ref: existing.get(ref) for ref in new}
    assert set(existing) <= set(fetched), f"never read: {set(existing) - set(fetched)}"
    pods = tuple(Pod(pod.get("raw", pod), pod.get("gone", False)) for pod in cluster.get("pods") or [])
    return Observed(fetched, pods, _reading(cluster.get("progress")))


def _reading(answer: dict[str, Any] | None) -> ProgressReading | None:
    if not answer:
        return None
    progress = Progress.from_dict(answer["progress"]) if "progress" in answer else None
    return ProgressReading(answer["podUid"], progress, answer.get("error"))
