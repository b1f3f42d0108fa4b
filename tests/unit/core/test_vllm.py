"""vLLM's arguments and environment, and what makes a server be rendered again."""

from typing import Any

import pytest

from hone.api.finetunejob_status import ArtifactStatus
from hone.api.modeldeployment import Role
from hone.core.modeldeployment.resources.deployment import deployment, inputs, revision_of
from hone.core.modeldeployment.resources.vllm import arguments, environment
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import Server
from hone.core.settings import Settings
from tests.unit.core import make


def server(**spec: Any) -> Server:
    return Server(make.modeldeployment(**spec), Settings())


def served(**artifact: Any) -> ServedArtifact:
    values = {**make.complete_job("sha256:aa")["status"]["artifact"], **artifact}
    return ServedArtifact("job", ArtifactStatus.from_dict(values))


@pytest.mark.parametrize(("rank", "want"), [(1, 1), (4, 8), (8, 8), (32, 32), (33, 64), (200, 256), (512, 512)])
def test_the_rank_is_one_that_vllm_takes(rank: int, want: int) -> None:
    assert f"--max-lora-rank={want}" in arguments(server(), served(loraRank=rank))


def test_an_adapter_is_served_beside_its_base_with_its_own_tokenizer() -> None:
    flags = arguments(server(servedName="support"), served())
    assert "--model=/mnt/model/tiny" in flags
    assert "--served-model-name=support-base" in flags
    assert "--lora-modules=support=/mnt/artifact/artifact" in flags
    assert "--tokenizer=/mnt/artifact/artifact" in flags


@pytest.mark.parametrize("gpus", [0, 1, 2])
@pytest.mark.parametrize("api", ["Chat", "Classify", "Reward"])
@pytest.mark.parametrize("kind", ["Adapter", "Model"])
def test_no_server_trusts_code_from_a_models_directory_or_loads_from_a_hub(kind: str, api: str, gpus: int) -> None:
    flags = arguments(server(gpus=gpus), served(kind=kind, api=api))
    assert not [flag for flag in flags if "trust" in flag or flag.startswith(("--hf-", "--load-format", "--code-"))]
    assert environment(server(gpus=gpus))["HF_HUB_OFFLINE"] == "1"


def test_a_whole_model_is_served_by_itself() -> None:
    flags = arguments(server(), served(kind="Model", modelClaim=None, modelPath=None))
    assert flags[:2] == ["--model=/mnt/artifact/artifact", "--served-model-name=bot"]
    assert not [argument for argument in flags if "lora" in argument]


def test_a_model_with_classes_or_a_score_is_served_by_the_pooling_runner_and_no_other() -> None:
    whole = {"kind": "Model", "modelClaim": None, "modelPath": None}
    for api in ("Classify", "Reward"):
        assert "--runner=pooling" in arguments(server(), served(**whole, api=api))
    assert "--runner=pooling" not in arguments(server(), served(**whole))


def test_the_users_arguments_come_last_and_the_users_environment_wins() -> None:
    runtime = {"args": ["--dtype=bfloat16"], "env": [{"name": "HF_HUB_OFFLINE", "value": "0"}]}
    subject = server(runtime=runtime)
    assert arguments(subject, served())[-1] == "--dtype=bfloat16"
    (container,) = deployment(subject, served(), Role.STABLE)["spec"]["template"]["spec"]["containers"]
    assert {"name": "HF_HUB_OFFLINE", "value": "0"} in container["env"]
    assert len({entry["name"] for entry in container["env"]}) == len(container["env"])


@pytest.mark.parametrize(
    ("gpus", "want", "unwanted"),
    [
        (0, ["--dtype=float32", "--enforce-eager"], "--tensor-parallel-size=0"),
        (1, [], "--tensor-parallel-size=1"),
        (4, ["--tensor-parallel-size=4"], "--dtype=float32"),
    ],
)
def test_gpus(gpus: int, want: list[str], unwanted: str) -> None:
    flags = arguments(server(gpus=gpus), served())
    assert set(want) <= set(flags)
    assert unwanted not in flags


@pytest.mark.parametrize(
    ("resources", "want"),
    [
        (None, "1"),
        ({"requests": {"cpu": "500m"}}, "1"),
        ({"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}, "4"),
        ({"limits": {"memory": "4Gi"}}, "1"),
    ],
)
def test_threads_of_a_cpu_server(resources: dict[str, Any] | None, want: str) -> None:
    spec = {"resources": resources} if resources else {}
    assert environment(server(**spec))["OMP_NUM_THREADS"] == want
    assert "OMP_NUM_THREADS" not in environment(server(gpus=1, **spec))


KV = "VLLM_CPU_KVCACHE_SPACE"


@pytest.mark.parametrize(
    ("spec", "weights", "want"),
    [
        ({"gpus": 4}, 10**12, "512Gi"),
        ({"gpus": 1, "runtime": {"args": ["--kv-offloading-size=1", "--kv_offloading_size", "20.5"]}}, 0, "149Gi"),
        ({"gpus": 1, "runtime": {"args": ["--kv-offloading-size"]}}, 0, "128Gi"),
        ({"gpus": 1, "runtime": {"args": [f"--kv-offloading-size={'9' * 300}"]}}, 0, "128Gi"),
        ({}, 0, "9Gi"),
        ({}, 5 * 2**30, "19Gi"),
        ({"runtime": {"env": [{"name": KV, "value": "40"}]}}, 0, "48Gi"),
        ({"pod": {"env": [{"name": KV, "value": "4"}]}}, 0, "12Gi"),
        ({"runtime": {"env": [{"name": KV, "value": "many"}]}}, 0, "8Gi"),
        ({"resources": {"limits": {"cpu": "4"}}}, 0, "9Gi"),
        ({"resources": {"limits": {"memory": "4Gi"}}}, 2**40, "4Gi"),
        ({"resources": {"requests": {"memory": "4Gi"}}}, 0, None),
    ],
)
def test_memory_of_a_server_is_limited_unless_the_spec_mentions_it(
    spec: dict[str, Any], weights: int, want: str | None
) -> None:
    template = deployment(server(**spec), served(weightsBytes=weights), Role.STABLE)["spec"]["template"]["spec"]
    for container in (*template["initContainers"], *template["containers"]):
        assert container["resources"].get("limits", {}).get("memory") == want


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, "1Gi"),
        ({"gpus": 2}, "8Gi"),
        ({"gpus": 2, "runtime": {"args": ["--kv-offloading-size=20"]}}, "28Gi"),
    ],
)
def test_shared_memory_of_a_server_is_limited(spec: dict[str, Any], want: str) -> None:
    template = deployment(server(**spec), served(), Role.STABLE)["spec"]["template"]["spec"]
    (shm,) = (volume for volume in template["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": want}


def test_the_grace_covers_drain() -> None:
    template = deployment(server(drainSeconds=300), served(), Role.STABLE)["spec"]["template"]["spec"]
    assert template["terminationGracePeriodSeconds"] > 300
    assert "--shutdown-timeout=300" in template["containers"][0]["args"]


@pytest.mark.parametrize(
    ("spec", "weights", "want"), [({}, 0, 600), ({}, 50_000_000_000, 1600), ({"startDeadlineSeconds": 42}, 10**12, 45)]
)
def test_time_to_start(spec: dict[str, Any], weights: int, want: int) -> None:
    body = deployment(server(**spec), served(weightsBytes=weights), Role.STABLE)["spec"]
    probe = body["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == want
    assert body["progressDeadlineSeconds"] >= want


@pytest.mark.parametrize(
    ("case", "spec", "artifact", "again"),
    [
        ("the same", {}, {}, False),
        ("another number of servers", {"replicas": 7}, {}, False),
        ("another artifact", {}, {"digest": "sha256:bb"}, True),
        ("another claim", {}, {"claim": "other"}, True),
        ("another argument", {"runtime": {"args": ["--x"]}}, {}, True),
    ],
)
def test_what_makes_a_server_be_rendered_again(
    case: str, spec: dict[str, Any], artifact: dict[str, Any], again: bool
) -> None:
    before, after = inputs(server(), served()), inputs(server(**spec), served(**artifact))
    assert (before != after) == again, case


def test_a_revision_names_artifact_and_template() -> None:
    def revision(spec: dict[str, Any], **artifact: Any) -> str:
        return revision_of(deployment(server(**spec), served(**artifact), Role.STABLE))

    assert revision({}) == revision({"replicas": 3})
    assert len({revision({}), revision({}, digest="sha256:bb"), revision({"drainSeconds": 1})}) == 3
