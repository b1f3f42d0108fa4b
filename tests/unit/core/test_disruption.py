"""What keeps requests while pods of a server stop: the hook, the time that it has, the budget, and where pods are."""

import json
from typing import Any

import pytest

from hone import guard
from hone.api.modeldeployment import Role
from hone.core.modeldeployment.resources import access
from hone.core.modeldeployment.resources.deployment import END_SECONDS, deployment
from hone.core.modeldeployment.resources.disruption import budget
from hone.core.names import UID_LABEL
from tests.unit.core.test_modeldeployment_lifecycle import served
from tests.unit.core.test_vllm import served as artifact
from tests.unit.core.test_vllm import server


def pod(**spec: Any) -> dict[str, Any]:
    """The spec of a server's pods."""
    return dict(deployment(server(**spec), artifact(), Role.STABLE)["spec"]["template"]["spec"])


@pytest.mark.parametrize("drain", [0, 120, 3600])
def test_a_pod_has_time_for_the_hook_its_requests_and_its_end(drain: int) -> None:
    spec = pod(drainSeconds=drain)
    (container,) = spec["containers"]
    assert container["lifecycle"] == {"preStop": {"httpGet": {"path": "/drain", "port": "metrics"}}}
    (policy,) = [json.loads(entry["value"]) for entry in container["env"] if entry["name"] == guard.VARIABLE]
    assert policy["drain_seconds"] == access.DRAIN_SECONDS
    assert f"--shutdown-timeout={drain}" in container["args"]
    assert spec["terminationGracePeriodSeconds"] == access.DRAIN_SECONDS + drain + END_SECONDS


def test_a_drain_of_nodes_stops_one_pod_at_a_time_and_is_never_blocked_by_a_single_one() -> None:
    rendered = budget(server())
    template = deployment(server(), artifact(), Role.STABLE)["spec"]["template"]
    selected = rendered["spec"]["selector"]["matchLabels"]
    assert selected.items() <= template["metadata"]["labels"].items()
    # With one replica, a minimum of one available pod would block each drain.
    assert rendered["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in rendered["spec"]
    assert rendered["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_budget_exists_before_the_first_pod_and_is_written_once() -> None:
    kinds = [ref.kind for ref in served().created]
    assert kinds.index("PodDisruptionBudget") < kinds.index("Deployment")
    fake = served()
    fake.edit(replicas=3).converge()
    assert [ref.kind for ref in fake.created].count("PodDisruptionBudget") == 1


def test_pods_of_a_revision_spread_over_nodes_and_zones_where_there_are_several() -> None:
    spread = pod(replicas=2)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for each in spread:
        assert (each["maxSkew"], each["whenUnsatisfiable"]) == (1, "ScheduleAnyway")
        assert each["labelSelector"]["matchLabels"] == {UID_LABEL: server().uid}
        # Else the pods of the old revision would count in a rollout.
        assert each["matchLabelKeys"] == ["pod-template-hash"]
