"""GPUs by the labels of nodes: which nodes a pod may run on, whose memory counts, and when it is recorded."""

from typing import Any

import pytest

from hone.contract.runconfig import RunConfig
from hone.core.finetunejob.policies.gpus import gpus_of_nodes
from hone.core.finetunejob.run import Run
from hone.core.kinds import KINDS
from hone.core.nodes import may_run, node_of
from hone.core.observed import Node, Object, Observed
from hone.core.settings import Settings
from tests.unit.core import make
from tests.unit.core.fake_cluster import Crash, FakeCluster

A10G = {"nvidia.com/gpu.product": "NVIDIA-A10G", "nvidia.com/gpu.memory": "23028"} | {
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "6",
}
T4 = {"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "15360"} | {
    "nvidia.com/gpu.compute.major": "7",
    "nvidia.com/gpu.compute.minor": "5",
}


def node(labels: dict[str, str], name: str = "n", gpus: int = 8, **spec: Any) -> Node:
    """A node with as many GPUs."""
    obj: Object = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    return node_of(obj | {"status": {"allocatable": {"cpu": "7910m", "nvidia.com/gpu": str(gpus)}}})


def run(**compute: Any) -> Run:
    """A run on GPUs."""
    return Run(make.finetunejob(compute={"gpusPerNode": 4, **compute}), Settings())


def affinity(*expressions: dict[str, Any], fields: str = "matchExpressions") -> dict[str, Any]:
    """Node affinity that requires one term."""
    term = {fields: [*expressions]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": [*values]}


TAINT = {"key": "team", "value": "a", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("which", "pod", "runs"),
    [
        ({}, {}, True),
        ({"gpus": 2}, {}, False),
        ({"unschedulable": True}, {}, False),
        ({}, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A10G"}}, True),
        ({}, {"nodeSelector": {"pool": "x"}}, False),
        ({"taints": [TAINT]}, {}, False),
        ({"taints": [{**TAINT, "effect": "PreferNoSchedule"}]}, {}, True),
        ({"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}, {}, True),
        ({"taints": [TAINT]}, {"tolerations": [{"key": "team", "value": "a"}]}, True),
        ({"taints": [TAINT]}, {"tolerations": [{"key": "team", "value": "b"}]}, False),
        ({"taints": [TAINT]}, {"tolerations": [{"key": "team", "operator": "Exists", "effect": "NoExecute"}]}, False),
        ({"taints": [TAINT]}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({}, {"affinity": affinity(expression("nvidia.com/gpu.product", "In", "NVIDIA-A10G", "x"))}, True),
        ({}, {"affinity": affinity(expression("nvidia.com/gpu.product", "NotIn", "NVIDIA-A10G"))}, False),
        ({}, {"affinity": affinity(expression("nvidia.com/gpu.memory", "Gt", "40000"))}, False),
        ({}, {"affinity": affinity(expression("nvidia.com/gpu.memory", "Lt", "40000"))}, True),
        ({}, {"affinity": affinity(expression("pool", "Exists"))}, False),
        ({}, {"affinity": affinity(expression("pool", "DoesNotExist"))}, True),
        ({}, {"affinity": affinity(expression("metadata.name", "In", "n"), fields="matchFields")}, True),
        ({}, {"affinity": affinity(expression("metadata.name", "In", "m"), fields="matchFields")}, False),
        ({}, {"affinity": affinity(expression("nvidia.com/gpu.product", "Gt", "3"))}, False),
        ({}, {"affinity": {"nodeAffinity": "none"}}, False),
        ({}, {"affinity": {"podAffinity": {}}}, True),
    ],
)
def test_a_pod_runs_where_the_scheduler_would_put_it(which: dict[str, Any], pod: dict[str, Any], runs: bool) -> None:
    compute = run(pod=pod).compute
    assert may_run(node(A10G, **which), compute.pod, compute.gpu_resource, compute.gpus_per_node) is runs


def test_of_several_kinds_the_smallest_counts_and_of_those_that_fit_only() -> None:
    nodes = (node(A10G, "a"), node(T4, "b"), node(T4, "c", gpus=2), node({"nvidia.com/gpu.product": "x"}, "d"))
    gpu = gpus_of_nodes(run(), Observed(nodes=nodes))
    assert gpu is not None
    assert gpu.to_dict() == {
        "product": "Tesla-T4",
        "memory": "15360Mi",
        "largestMemory": "23028Mi",
        "computeCapability": "7.5",
        "nodes": 2,
    }
    chosen = gpus_of_nodes(run(pod={"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A10G"}}), Observed(nodes=nodes))
    assert chosen is not None
    assert (chosen.memory, chosen.compute_capability, chosen.nodes) == ("23028Mi", "8.6", 1)
    assert chosen.largest_memory is None


def test_the_largest_of_several_kinds_reaches_the_plan() -> None:
    cluster = gpu_cluster()
    cluster.nodes = (node(A10G, "a"), node(T4, "b"))
    cluster.converge()
    (config,) = rendered(cluster)
    assert (config.topology.memory_bytes, config.topology.largest_memory_bytes) == (15360 * 2**20, 23028 * 2**20)


def test_parts_of_gpus_have_labels_of_their_own() -> None:
    labels = A10G | {"nvidia.com/mig-1g.10gb.memory": "9856", "nvidia.com/mig-1g.10gb.product": "A100-MIG-1g.10gb"}
    part = node_of(
        {"metadata": {"name": "n", "labels": labels}, "status": {"allocatable": {"nvidia.com/mig-1g.10gb": "7"}}}
    )
    gpu = gpus_of_nodes(run(gpuResource="nvidia.com/mig-1g.10gb"), Observed(nodes=(part,)))
    assert gpu is not None
    assert (gpu.product, gpu.memory) == ("A100-MIG-1g.10gb", "9856Mi")


@pytest.mark.parametrize("memory", ["", "0", "many", "-5", "1" * 40])
def test_a_label_that_is_no_number_counts_as_none(memory: str) -> None:
    assert gpus_of_nodes(run(), Observed(nodes=(node({**A10G, "nvidia.com/gpu.memory": memory}),))) is None


def gpu_cluster(**compute: Any) -> FakeCluster:
    """A job on one GPU, in a cluster with nodes of A10G."""
    job = make.finetunejob(compute={"gpusPerNode": 1, **compute})
    cluster = FakeCluster(job, nodes=(node(A10G),))
    return cluster.add(make.claim("base-models"), make.config_map("reviews", **{"train.jsonl": "{}"}))


def rendered(cluster: FakeCluster) -> list[RunConfig]:
    """The RunConfigs of the cluster."""
    texts = [(obj.get("data") or {}).get("run.json") for obj in cluster.written.values()]
    return [RunConfig.model_validate_json(text) for text in texts if text]


def test_what_labels_show_is_recorded_and_then_planned_for() -> None:
    cluster = gpu_cluster()
    cluster.converge()
    assert cluster.resource["status"]["gpu"]["memory"] == "23028Mi"
    (config,) = rendered(cluster)
    assert config.topology.memory_bytes == 23028 * 2**20
    assert config.topology.gpu_by_labels == "NVIDIA-A10G, by the labels of 1 node"


def test_the_spec_comes_before_labels() -> None:
    cluster = gpu_cluster(gpuMemory="20Gi")
    cluster.converge()
    (config,) = rendered(cluster)
    assert (config.topology.memory_bytes, config.topology.gpu_by_labels) == (20 * 2**30, None)


@pytest.mark.parametrize("nodes", [None, ()])
def test_without_labels_all_is_as_before(nodes: tuple[Node, ...] | None) -> None:
    cluster = gpu_cluster()
    cluster.nodes = nodes
    cluster.converge()
    assert "gpu" not in cluster.resource["status"]
    (config,) = rendered(cluster)
    assert "memoryBytes" not in config.topology.to_dict() and "gpuByLabels" not in config.topology.to_dict()


def test_after_a_crash_at_any_write_one_configuration_is_used() -> None:
    for crash_at in range(1, 6):
        cluster = gpu_cluster()
        cluster.crash_at = crash_at
        with pytest.raises(Crash):
            cluster.converge()
        cluster.crash_at = None
        cluster.nodes = (node(T4),)
        cluster.converge()
        config = cluster.resource["status"]["runConfig"]
        (job,) = [obj for ref, obj in cluster.written.items() if ref.kind == "Job"]
        volumes = job["spec"]["template"]["spec"]["volumes"]
        assert config in [volume.get("configMap", {}).get("name") for volume in volumes]


def test_once_prepared_nodes_change_nothing_until_the_spec_is_edited() -> None:
    cluster = gpu_cluster()
    cluster.converge()
    cluster.nodes = (node(T4),)
    cluster.converge()
    assert cluster.resource["status"]["gpu"]["product"] == "NVIDIA-A10G"
    cluster.edit(compute={"gpusPerNode": 1, "pod": {"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}}})
    cluster.converge()
    assert cluster.resource["status"]["gpu"]["product"] == "Tesla-T4"
    assert {config.topology.memory_bytes for config in rendered(cluster)} == {23028 * 2**20, 15360 * 2**20}


def test_on_cpus_nodes_are_not_read() -> None:
    subject = gpu_cluster(gpusPerNode=0).subject()
    assert not KINDS["FineTuneJob"].reads_nodes(subject)


def test_an_amount_that_is_no_quantity_counts_as_nothing() -> None:
    patched = {
        "metadata": {"name": "n"},
        "status": {"allocatable": {"example.com/dongle": "1e3", "nvidia.com/gpu": "8"}},
    }
    assert node_of(patched).allocatable == {"example.com/dongle": 0, "nvidia.com/gpu": 8}
