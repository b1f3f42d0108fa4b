"""What the spec names and the user has yet to make."""

from typing import Any

import pytest

from tests.unit.core import make
from tests.unit.core.world import finetunejob_world


@pytest.mark.parametrize(
    ("case", "spec", "reason", "field"),
    [
        ("model", {"model": {"claim": {"name": "none", "path": "x"}}}, "PersistentVolumeClaimNotFound",
         "spec.model.claim.name"),
        ("data in a ConfigMap", {"dataset": {"train": {"configMap": {"name": "none", "key": "k"}}}},
         "ConfigMapNotFound", "spec.dataset.train.configMap.name"),
        ("its key", {"dataset": {"train": {"configMap": {"name": "reviews", "key": "k"}}}},
         "KeyNotFound", "spec.dataset.train.configMap.key"),
        ("data on a claim", {"dataset": {"train": {"claim": {"name": "none", "path": "x"}}}},
         "PersistentVolumeClaimNotFound", "spec.dataset.train.claim.name"),
        ("test data", {"dataset": {"train": {"claim": {"name": "base-models", "path": "x"}},
                                   "test": {"configMap": {"name": "none", "key": "k"}}}},
         "ConfigMapNotFound", "spec.dataset.test.configMap.name"),
        ("a reward model", {"objective": "GRPO", "reward": {"model": {"claim": {"name": "none", "path": "x"}}}},
         "PersistentVolumeClaimNotFound", "spec.reward.model.claim.name"),
        ("a reward function", {"objective": "GRPO", "reward": {"functions": [
            {"name": "F1"}, {"configMap": {"name": "none", "key": "k"}}]}},
         "ConfigMapNotFound", "spec.reward.functions[1].configMap.name"),
        ("workspace", {"workspace": {"claimName": "none"}}, "PersistentVolumeClaimNotFound",
         "spec.workspace.claimName"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_by_its_field_and_nothing_is_made(
    case: str, spec: dict[str, Any], reason: str, field: str
) -> None:
    world = finetunejob_world(**spec)
    plan = world.settle()
    assert world.made == [], case
    assert world.condition("Validated") == ("Unknown", reason)
    assert world.message("Validated").startswith(f"{field}: ")
    assert world.condition("Reconciling") == ("True", reason)
    assert world.status["phase"] == "Pending"
    assert plan.requeue_after == 10
    assert world.reasons() == [reason]


def test_what_was_missing_may_come_later() -> None:
    world = finetunejob_world(model={"claim": {"name": "late", "path": "x"}})
    world.settle()
    world.add(make.claim("late")).settle()
    assert world.jobs() == ["prepare-1"]
