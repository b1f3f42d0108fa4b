"""The vLLM server in trainer pods that generates answers: when it is there, what it may do, and what its end means."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone.contract.runconfig import GENERATION_GPU_SHARE, Attempt
from hone.core import pods as podinfo
from hone.core.finetunejob.resources.jobs import job
from hone.core.finetunejob.resources.networkpolicy import network_policy
from hone.core.finetunejob.resources.runconfig import config_map_name, run_config
from hone.core.finetunejob.run import FINISH, PREPARE, TRAIN, Run
from hone.core.finetunejob.steps import STEPS
from hone.core.observed import Object, Pod
from hone.core.settings import Settings
from hone.runtime.evidence import is_ending
from tests.unit.core import make
from tests.unit.core.runs import results, training

REWARD = {"functions": [{"name": "ExactMatch"}]}
ON_GPUS = {"compute": {"gpusPerNode": 4, "gpuMemory": "80Gi", "nodes": 2}}


def run_with(engine: str | None = "VLLM", **spec: Any) -> Run:
    """A GRPO run after prepare, whose plan chose the engine; None: the plan says nothing of it."""
    resource = make.finetunejob(**{"objective": "GRPO", "reward": REWARD, "generation": {}, **spec})
    chosen = {"generation_engine": engine, "generation_memory_bytes": 5 * 2**30} if engine else {}
    return Run(resource, Settings()).planned(make.training_plan(**chosen))


def pod(run: Run, step: str = TRAIN) -> dict[str, Any]:
    body = job(run, STEPS[step], Attempt(number=1), "config")
    return dict(body["spec"]["template"]["spec"])


def server(run: Run) -> dict[str, Any]:
    (only,) = pod(run)["initContainers"]
    return dict(only)


def paths(container: dict[str, Any]) -> dict[str, str]:
    """Names of volumes by the path they are mounted at."""
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def test_a_trainer_pod_has_the_server_as_a_sidecar_which_ends_with_it() -> None:
    run = run_with(**ON_GPUS)
    container = server(run)
    # Kubernetes ends such a container once the others have ended, and starts it again if it ends before.
    assert container["restartPolicy"] == "Always"
    assert container["name"] == podinfo.SIDECAR
    assert pod(run)["restartPolicy"] == "Never"
    assert [each["name"] for each in pod(run)["containers"]] == ["train"]
    assert container["image"] == Settings().server_image
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod(run)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert f"--gpu-memory-utilization={GENERATION_GPU_SHARE}" in container["args"]
    assert "startupProbe" not in container, "the ranks would wait for it before they load their own model"


def test_it_is_reached_from_its_own_pod_alone() -> None:
    run = run_with(**ON_GPUS)
    container, policy = server(run), network_policy(run)
    configured = run_config(run).answer_server
    assert configured is not None
    assert "--host=127.0.0.1" in container["args"]
    assert f"--port={configured.url.rpartition(':')[2]}" in container["args"]
    assert configured.url.startswith("http://127.0.0.1:")
    assert "ports" not in container
    assert policy == network_policy(Run(make.finetunejob(), Settings()))


def test_ranks_and_server_share_adapters_and_model_and_nothing_else_of_the_run() -> None:
    run = run_with()
    container, (ranks,) = server(run), pod(run)["containers"]
    configured = run_config(run).answer_server
    assert configured is not None
    ours, theirs = paths(container), paths(ranks)
    assert ours[configured.adapters] == theirs[configured.adapters] == "adapters"
    assert ours["/mnt/model"] == theirs["/mnt/model"]
    assert "--model=/mnt/model/tiny" in container["args"]
    assert not any(path.startswith(("/mnt/workspace", "/etc/hone")) for path in ours), "it reads no rows"
    assert next(mount for mount in container["volumeMounts"] if mount["mountPath"] == "/mnt/model")["readOnly"]
    assert "HONE_ATTEMPT" not in {entry["name"] for entry in container["env"]}
    (volume,) = [each for each in pod(run)["volumes"] if each["name"] == "adapters"]
    assert "emptyDir" in volume


def test_a_model_that_prepare_wrote_is_read_where_it_is() -> None:
    run = run_with(model={"uri": "hf://org/tiny"})
    container = server(run)
    (model,) = [argument for argument in container["args"] if argument.startswith("--model=")]
    assert model.removeprefix("--model=").startswith("/mnt/workspace/models/")
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/mnt/workspace/models"]
    assert mount["subPath"] == "models"
    assert mount["readOnly"]


@pytest.mark.parametrize(
    ("engine", "spec"),
    [
        pytest.param("Trainer", {}, id="the plan chose the training processes"),
        pytest.param(None, {}, id="an older plan"),
        pytest.param(None, {"generation": None}, id="the spec says nothing"),
    ],
)
def test_without_it_a_pod_is_what_it_always_was(engine: str | None, spec: dict[str, Any]) -> None:
    run = run_with(engine, **ON_GPUS, **spec)
    if spec:
        del run.resource["spec"]["generation"]
    plain = make.finetunejob(objective="GRPO", reward=REWARD, **ON_GPUS)
    before = Run(plain, Settings()).planned(make.training_plan())
    assert pod(run) == pod(before)
    assert STEPS[TRAIN].gpus(run) == 8


def test_a_spec_that_says_nothing_has_the_run_config_that_it_always_had() -> None:
    resource = make.finetunejob(objective="GRPO", reward=REWARD)
    run = Run(resource, Settings())
    assert "answerServer" not in run_config(run).to_dict()
    other = make.finetunejob(objective="GRPO", reward=REWARD, generation={"engine": "VLLM"})
    assert config_map_name(Run(other, Settings())) != config_map_name(run)


def test_no_other_step_has_it() -> None:
    run = run_with()
    for step in (PREPARE, FINISH):
        names = [each["name"] for each in pod(run, step).get("initContainers", [])]
        assert podinfo.SIDECAR not in names


def test_several_gpus_divide_the_model_and_count_as_the_attempts() -> None:
    run = run_with(**ON_GPUS, generation={"gpusPerNode": 2})
    container = server(run)
    assert "--tensor-parallel-size=2" in container["args"]
    assert container["resources"]["limits"] == {"memory": "256Gi", "nvidia.com/gpu": "2"}
    assert STEPS[TRAIN].gpus(run) == 2 * (4 + 2)
    (shm,) = [volume for volume in pod(run)["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["sizeLimit"] == "24Gi"
    configured = run_config(run).answer_server
    assert configured is not None
    assert (configured.gpus, configured.memory_bytes) == (2, 80 * 2**30)


def test_gpus_without_bfloat16_serve_in_float16() -> None:
    run = run_with(**ON_GPUS)
    assert not any(argument.startswith("--dtype") for argument in server(run)["args"])
    of_float16 = make.training_plan(generation_engine="VLLM", compute_dtype="float16")
    assert "--dtype=float16" in server(run.planned(of_float16))["args"]


def test_on_the_cpu_it_has_the_memory_that_the_plan_estimates() -> None:
    container = server(run_with())
    assert container["image"] == Settings().server_cpu_image
    assert {"--dtype=float32", "--enforce-eager", "--no-enable-chunked-prefill"} <= {*container["args"]}
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "5Gi"}, "limits": {"memory": "10Gi"}}
    requested = {"requests": {"cpu": "2"}, "limits": {"memory": "6Gi"}}
    run = run_with(generation={"resources": requested})
    assert server(run)["resources"] == requested
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in server(run)["env"]
    assert {"name": "TORCH_COMPILE_DISABLE", "value": "1"} in server(run)["env"], "the image has no compiler"
    on_gpus = server(run_with(**ON_GPUS))["env"]
    assert "TORCH_COMPILE_DISABLE" not in {entry["name"] for entry in on_gpus}
    configured = run_config(run).answer_server
    assert configured is not None
    assert configured.memory_bytes == 6 * 2**30


def test_the_longest_row_may_be_one_that_is_not_trained_on() -> None:
    assert "--max-model-len=128" in server(run_with())["args"]
    assert "--max-model-len=512" in server(run_with(hyperparameters={"sequenceLength": 512}))["args"]


def test_the_rank_of_the_adapter_is_one_that_vllm_takes() -> None:
    assert "--max-lora-rank=32" in server(run_with())["args"]
    assert "--max-lora-rank=64" in server(run_with(method={"lora": {"rank": 33}}))["args"]


def a_pod(sidecar: Object, train: Object, phase: str = "Running") -> Pod:
    status = {
        "phase": phase,
        "initContainerStatuses": [{"name": podinfo.SIDECAR, **sidecar}],
        "containerStatuses": [{"name": "train", **train}],
    }
    return Pod({"metadata": {"name": "train-0"}, "status": status}, gone=False)


KILLED = {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "{}"}}}
CRASHING = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 1, "message": "line\nValueError: no such device\n"}},
}
START = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
DONE = {"state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:01:00Z"}}}


def test_a_server_that_dies_is_no_end_of_its_pod() -> None:
    died = a_pod(KILLED, RUNNING)
    assert podinfo.terminated(died) is None
    assert podinfo.ends(died) == []
    assert not is_ending(died.raw)
    assert is_ending(a_pod(RUNNING, KILLED).raw)
    ended = a_pod(KILLED, DONE, "Succeeded")
    assert (podinfo.terminated(ended) or {})["exitCode"] == 0
    assert len(podinfo.ends(ended)) == 1


def test_a_pod_starts_with_its_ranks_and_not_with_the_server() -> None:
    waiting = {"state": {"waiting": {"reason": "PodInitializing"}}}
    assert not podinfo.has_started(a_pod(RUNNING, waiting))
    pulling = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    trouble = podinfo.trouble([a_pod(pulling, waiting, "Pending")])
    assert trouble is not None
    assert trouble.reason == "ImagePullBackOff"


def test_a_server_that_crashes_again_and_again_is_reported_with_its_last_words() -> None:
    trouble = podinfo.sidecar_trouble([a_pod(CRASHING, RUNNING)], START)
    assert trouble is not None
    assert trouble.reason == "CrashLoopBackOff"
    assert "train-0" in trouble.message
    assert "ValueError: no such device" in trouble.message
    assert "-c vllm" in trouble.message
    assert podinfo.sidecar_trouble([a_pod(RUNNING, RUNNING)], START) is None
    assert podinfo.sidecar_trouble([a_pod(CRASHING, DONE, "Succeeded")], START) is None


@pytest.mark.parametrize(("seconds", "steady"), [(0, False), (599, False), (600, True)])
def test_between_two_crashes_it_is_reported_as_well(seconds: int, steady: bool) -> None:
    """Without a probe, the kubelet calls it ready as soon as it runs."""
    running, now = {**CRASHING, **RUNNING, "ready": True}, START + timedelta(seconds=seconds)
    assert podinfo.sidecar_trouble([a_pod(running, RUNNING)], now) == (
        None if steady else podinfo.sidecar_trouble([a_pod(CRASHING, RUNNING)], now)
    )


def test_while_it_crashes_the_job_says_so_and_goes_on() -> None:
    cluster = training()
    (trainer,) = cluster.pods_of(cluster.job()["metadata"]["name"])
    trainer["status"]["initContainerStatuses"] = [{"name": podinfo.SIDECAR, **CRASHING}]
    cluster.converge()
    assert cluster.condition("Ready") == ("False", "CrashLoopBackOff")
    assert results(cluster)[-1] == ("train", 1, "Running")
    assert cluster.status["phase"] == "Training"
    trainer["status"]["initContainerStatuses"] = [{"name": podinfo.SIDECAR, **RUNNING}]
    cluster.converge()
    assert cluster.condition("Ready") == ("False", "Training")
    trainer["status"]["initContainerStatuses"] = [{"name": podinfo.SIDECAR, **KILLED}]
    cluster.complete(make.trained())
    cluster.converge()
    assert results(cluster)[-2:] == [("train", 1, "Succeeded"), ("finish", 1, "Running")]
