"""The labels that people select by: each child and pod names the resource that it belongs to."""

import re
from typing import Any

import pytest

from hone.contract.results import ArtifactSummary, InspectedModel, StepResult
from hone.core.finetunejob import FINETUNEJOB
from hone.core.kind import AnyKind
from hone.core.modeldeployment import MODELDEPLOYMENT
from hone.core.names import RESOURCE_LABELS, label_value
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster, finetunejob_cluster

LEGAL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""What the API server allows as a label's value."""
DIGEST = "sha256:" + "a" * 64
LONG = "sentiment-" * 7 + "v2"


def tuned(name: str) -> FakeCluster:
    """A FineTuneJob on two nodes that has been trained and is scored, with all its children."""
    cluster = finetunejob_cluster(make.finetunejob(name, compute={"gpusPerNode": 0, "nodes": 2}))
    for result in (make.prepared(), make.trained()):
        cluster.converge()
        cluster.complete(result)
    cluster.converge()
    return cluster


def served(name: str) -> FakeCluster:
    """A ModelDeployment of a published model, with its Job, Deployment and Service."""
    cluster = FakeCluster(make.modeldeployment(name, model={"uri": "hf://acme/support"}))
    cluster.converge()
    artifact = ArtifactSummary(digest=DIGEST, size_bytes=1, kind="Model")
    cluster.complete(StepResult(step="inspect", inspected=InspectedModel(artifact=artifact)))
    cluster.converge()
    return cluster


def labels_of(cluster: FakeCluster) -> list[dict[str, Any]]:
    """The labels of all children, and of the pods of those that have pods."""
    children = [cluster.written[ref] for ref in cluster.created]
    templates = [child["spec"]["template"] for child in children if child["kind"] in ("Job", "Deployment")]
    return [each["metadata"]["labels"] for each in (*children, *templates)]


@pytest.mark.parametrize(
    ("build", "label", "kind"),
    [(tuned, "hone.dev/job", FINETUNEJOB), (served, "hone.dev/deployment", MODELDEPLOYMENT)],
)
@pytest.mark.parametrize("name", ["support", "3b.v1-sft", LONG])
def test_every_child_and_pod_names_its_resource_by_a_label(build: Any, label: str, kind: AnyKind, name: str) -> None:
    cluster = build(name)
    # Revisions are stored only where spec.rollout is set.
    kinds = {child.kind for child in kind.children} - {"ControllerRevision"}
    assert {ref.kind for ref in cluster.created} - {"Secret"} == kinds
    for labels in labels_of(cluster):
        assert {key: labels[key] for key in RESOURCE_LABELS.values() if key in labels} == {label: label_value(name)}


@pytest.mark.parametrize("name", ["a", "3b.v1-sft", "x" * 63])
def test_a_name_that_fits_is_its_own_label(name: str) -> None:
    assert label_value(name) == name


def test_a_long_name_becomes_a_legal_label_of_its_own() -> None:
    names = [LONG, LONG + "x", "a." * 100 + "b", "x" * 253]
    values = [label_value(name) for name in names]
    assert all(LEGAL.fullmatch(value) for value in values)
    assert len(set(values)) == len(names)
    assert values[0] == label_value(LONG)
