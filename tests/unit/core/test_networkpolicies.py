"""NetworkPolicies: created before the pods that they protect, and they admit nobody else."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from hone.contract.judge import JUDGE_KEY
from hone.contract.runconfig import METRICS_PORT
from hone.core.finetunejob.resources import networkpolicy as run_policy
from hone.core.finetunejob.run import Run
from hone.core.modeldeployment.resources import access
from hone.core.modeldeployment.resources import networkpolicy as server_policy
from hone.core.modeldeployment.server import HTTP_PORT, Server
from hone.core.network import POLICY, NetworkPeers
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster
from tests.unit.core.runs import finishing
from tests.unit.core.test_modeldeployment_lifecycle import served

OPERATOR = {"namespaceSelector": {"matchLabels": {"name": "hone"}}, "podSelector": {"matchLabels": {"app": "hone"}}}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
GATEWAY = {"namespaceSelector": {"matchLabels": {"name": "gateway"}}}
JUDGE = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
PEERS = NetworkPeers(operator=(OPERATOR,), metrics=(PROMETHEUS,), clients=(GATEWAY,), egress=(JUDGE,))
SETTINGS = Settings(network_policies=PEERS)


@pytest.fixture
def cluster() -> FakeCluster:
    """A FineTuneJob with all that it needs."""
    return FakeCluster(make.finetunejob()).add(
        make.claim("base-models"), make.config_map("reviews", **{"train.jsonl": ""})
    )


def admitted(policy: Any, port: int) -> list[Any]:
    """The peers that may connect to a port."""
    rules = policy["spec"]["ingress"]
    assert all(rule["from"] for rule in rules), "a rule without peers admits anybody"
    return [
        peer
        for rule in rules
        if "ports" not in rule or port in [each["port"] for each in rule["ports"]]
        for peer in rule["from"]
    ]


@pytest.mark.parametrize("nodes", [1, 2])
def test_only_pods_of_the_same_run_reach_its_ranks(nodes: int) -> None:
    run = Run(make.finetunejob(compute={"nodes": nodes, "gpusPerNode": 1}), SETTINGS)
    policy = run_policy.network_policy(run)
    ours = {"podSelector": {"matchLabels": {"hone.dev/uid": run.uid}}}
    assert policy["spec"]["podSelector"] == ours["podSelector"]
    assert admitted(policy, 29400) == admitted(policy, 40001) == [ours]
    assert admitted(policy, METRICS_PORT) == [ours, OPERATOR, PROMETHEUS]
    assert [rule.get("to") for rule in policy["spec"]["egress"]] == [[ours], None, JUDGE["to"]]


def test_a_server_is_for_its_namespace_and_the_clients() -> None:
    policy = server_policy.network_policy(Server(make.modeldeployment(), SETTINGS))
    assert admitted(policy, HTTP_PORT) == [{"podSelector": {}}, GATEWAY]
    assert admitted(policy, access.METRICS_PORT) == [PROMETHEUS]
    assert admitted(policy, METRICS_PORT) == []


def test_nobody_is_admitted_where_nobody_is_named() -> None:
    settings = Settings(network_policies=NetworkPeers())
    policy = run_policy.network_policy(Run(make.finetunejob(), settings))
    assert admitted(policy, METRICS_PORT) == [{"podSelector": policy["spec"]["podSelector"]}]


def test_it_exists_before_the_first_job(cluster: FakeCluster) -> None:
    cluster.settings = SETTINGS
    plan = cluster.reconcile()
    kinds = [obj["kind"] for obj in plan.create]
    assert kinds.index("NetworkPolicy") < kinds.index("Job")
    assert cluster.reconcile().create == ()


def test_status_says_what_is_known_of_its_effect(cluster: FakeCluster) -> None:
    cluster.settings = SETTINGS
    cluster.reconcile()
    assert cluster.resource["status"]["networkPolicy"] == "NotKnownToBeEnforced"


def test_status_says_what_the_administrator_knows(cluster: FakeCluster) -> None:
    cluster.settings = Settings(network_policies=replace(PEERS, enforced=True))
    cluster.reconcile()
    assert cluster.resource["status"]["networkPolicy"] == "Enforced"


def test_without_the_setting_there_is_none(cluster: FakeCluster) -> None:
    cluster.settings = Settings()
    assert "NetworkPolicy" not in [obj["kind"] for obj in cluster.reconcile().create]
    assert "networkPolicy" not in cluster.resource["status"]


def policies(cluster: FakeCluster) -> list[str]:
    """The names of the policies that exist."""
    return [ref.name for ref in cluster.objects if ref.kind == "NetworkPolicy"]


@pytest.mark.parametrize("crash", [False, True])
def test_switched_off_the_policy_of_a_run_is_removed_while_it_trains(cluster: FakeCluster, crash: bool) -> None:
    cluster.settings = SETTINGS
    cluster.converge()
    cluster.complete(make.prepared())
    cluster.converge()
    assert len(policies(cluster)) == 1 and cluster.jobs()[-1] == "train-1"
    cluster.settings = Settings()
    if crash:  # after the deletion, before the status says so
        cluster.crash_at = cluster.writes + 2
        with pytest.raises(Crash):
            cluster.reconcile()
        assert "networkPolicy" in cluster.status
        cluster.crash_at = None
    cluster.converge()
    assert policies(cluster) == []
    assert "networkPolicy" not in cluster.status and cluster.jobs()[-1] == "train-1"
    assert cluster.reconcile().delete == ()


def test_switched_off_the_policy_of_a_server_is_removed_and_it_stays_available() -> None:
    cluster = served()
    assert len(policies(cluster)) == 1
    cluster.settings = Settings()
    cluster.converge()
    assert policies(cluster) == []
    assert "networkPolicy" not in cluster.status and cluster.status["phase"] == "Available"
    cluster.settings = SETTINGS
    cluster.converge()
    assert len(policies(cluster)) == 1 and cluster.status["networkPolicy"] == "NotKnownToBeEnforced"


def test_a_policy_of_somebody_else_is_never_removed(cluster: FakeCluster) -> None:
    cluster.settings = SETTINGS
    cluster.converge()
    (ref,) = (ref for ref in cluster.objects if ref.kind == "NetworkPolicy")
    del cluster.objects[ref]["metadata"]["ownerReferences"], cluster.objects[ref]["metadata"]["labels"]
    cluster.settings = Settings()
    for _ in range(3):
        assert cluster.reconcile().delete == ()
    assert policies(cluster)


def test_what_the_api_server_fills_in_is_no_difference() -> None:
    """A policy that always differed would be written by every reconcile."""
    web = NetworkPeers(egress=({"ports": [{"port": 443}]},), metrics=({"namespaceSelector": {"matchLabels": {}}},))
    server = Server(make.modeldeployment(), Settings(network_policies=web))
    live = copy.deepcopy(server_policy.network_policy(server))
    live["spec"]["egress"][-1]["ports"][0]["protocol"] = "TCP"
    live["spec"]["ingress"][0]["from"][-1]["namespaceSelector"] = {}
    assert not server_policy.differs(server, live)
    assert server_policy.differs(Server(make.modeldeployment(), SETTINGS), live)
    assert server_policy.differs(server, None)


def judged(**judge: Any) -> FakeCluster:
    """A cluster in which the pod that scores has begun, with a judge."""
    return finishing(evaluation={"judge": {"url": "https://judge.example.com/v1", "model": "judge", **judge}})


def key_of(job: Any) -> list[Any]:
    """The judge's key among the variables of all containers of a Job's pods."""
    spec = job["spec"]["template"]["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    return [entry for each in containers for entry in each["env"] if entry["name"] == JUDGE_KEY]


def test_only_the_pod_that_scores_reaches_the_judge_and_has_its_key() -> None:
    cluster = judged(apiKeySecretRef={"name": "judge"})
    run = Run(cluster.resource, cluster.settings)
    policy = cluster.written[POLICY.ref(run.judge_policy)]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"hone.dev/uid": run.uid, "hone.dev/step": "finish"}
    outside, inside = policy["spec"]["egress"]
    assert inside == {"to": [{"podSelector": {}}]}, "pods of its own namespace"
    assert [port["port"] for port in outside["ports"]] == [443]
    jobs = {
        ref.name.removeprefix(f"{run.base_name}-"): job for ref, job in cluster.written.items() if ref.kind == "Job"
    }
    assert [name for name, job in jobs.items() if key_of(job)] == ["finish-1"]
    # The pod that exports the model starts without the Secret, too.
    keys = [entry["valueFrom"]["secretKeyRef"] for entry in key_of(jobs["finish-1"])]
    assert keys == [{"name": "judge", "key": JUDGE_KEY, "optional": True}] * 2


def test_a_judge_without_a_secret_has_no_key_and_a_job_without_a_judge_no_policy() -> None:
    assert not key_of(judged().job())
    without = finishing()
    assert POLICY.ref(Run(without.resource, without.settings).judge_policy) not in without.written
