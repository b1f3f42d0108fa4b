"""What the pods are told, from the spec."""

from pathlib import PurePosixPath
from typing import Any

import pytest

from hone.contract.runconfig import MOUNTS, Attempt, RunConfig
from hone.core.finetunejob.resources import jobs
from hone.core.finetunejob.resources.runconfig import config_map, config_map_name, memory_per_process, run_config
from hone.core.finetunejob.run import PREPARE, TRAIN, Run
from hone.core.finetunejob.sources.models import model_sources
from hone.core.finetunejob.steps import STEPS
from hone.core.podspec import ClaimMount, ConfigMapMount
from hone.core.quantity import as_int
from hone.core.settings import Settings
from tests.unit.core import make


def run(**spec: Any) -> Run:
    return Run(make.finetunejob(**spec), Settings())


def test_defaults() -> None:
    config = run_config(run())
    assert config.data.train == "/mnt/data/train/train.jsonl"
    assert (config.data.validation, config.data.test) == (None, None)
    assert (config.data.mounts, config.data.columns) == ("/mnt/data", None)
    assert (config.data.validation_fraction, config.data.test_fraction) == (0.1, 0.1)
    assert config.paths.model == "/mnt/model/tiny"
    assert config.paths.run == "/mnt/workspace/team-a/support-bot/11111111-aaaa"
    assert (config.topology.nodes, config.topology.processes_per_node, config.topology.gpus_per_node) == (1, 1, 0)
    assert config.model_name == "tiny"


def test_pods_wait_for_each_other_as_long_as_the_operator_waits_for_them() -> None:
    assert run_config(run()).start_deadline_seconds == 1800
    assert run_config(run(startDeadlineSeconds=90)).start_deadline_seconds == 90


def test_the_time_that_training_has_without_progress_is_the_users() -> None:
    assert run_config(run()).hang_floor_seconds == 300
    assert run_config(run(progressDeadlineSeconds=3600)).hang_floor_seconds == 3600


def test_the_volumes_of_models_are_mounted_where_the_trainer_takes_them_for_volumes() -> None:
    model = {"claim": {"name": "models", "path": "base/7b"}}
    pods = model_sources(run(objective="Distillation", model=model, teacher=model, reward={"model": model}))
    mounts = [mount.path for source in pods.values() for mount in source.mounts]
    assert mounts == ["/mnt/model", "/mnt/reward-model", "/mnt/teacher"]
    assert {str(PurePosixPath(path).parent) for path in mounts} == {MOUNTS}
    assert [source.path for source in pods.values()] == [f"{path}/base/7b" for path in mounts]


def test_held_out_data_of_its_own_or_a_fraction() -> None:
    train = {"claim": {"name": "data", "path": "train"}}
    dataset = {"train": train, "validation": {"fraction": 0.2}, "test": {"claim": {"name": "data", "path": "t.jsonl"}}}
    config = run_config(run(dataset=dataset))
    assert config.data.train == "/mnt/data/train/train"
    assert (config.data.validation, config.data.validation_fraction) == (None, 0.2)
    assert config.data.test == "/mnt/data/test/t.jsonl"


def test_each_of_several_sources_has_its_own_volume_and_settings() -> None:
    sources = [
        {"name": "a", "claim": {"name": "data", "path": "a.jsonl"}, "weight": 2, "columns": {"prompt": "q"}},
        {"name": "b", "configMap": {"name": "rows", "key": "b.csv"}, "format": "Alpaca", "maxRows": 5},
    ]
    job = run(dataset={"train": {"sources": sources}, "format": "Messages", "roles": {"bot": "assistant"}})
    data = run_config(job).data
    assert (data.train, data.roles) == ("/mnt/data/train/0/a.jsonl", {"bot": "assistant"})
    assert data.sources is not None
    first, second = data.sources
    assert (first.path, first.weight, first.columns, first.roles) == (data.train, 2, {"prompt": "q"}, data.roles)
    assert (first.format, second.format, second.max_rows) == ("Messages", "Alpaca", 5)
    assert second.path == "/mnt/data/train/1/b.csv"
    places = {mount.path for mount in STEPS[PREPARE].mounts(job) if isinstance(mount, ClaimMount | ConfigMapMount)}
    assert {"/mnt/data/train/0", "/mnt/data/train/1"} <= places


def test_a_chat_template_is_mounted_for_prepare_alone() -> None:
    train = {"claim": {"name": "data", "path": "rows.jsonl"}}
    own = {"configMap": {"name": "templates", "key": "support.jinja"}}
    job = run(dataset={"train": train, "chatTemplate": own, "systemPrompt": "Be brief."})
    data = run_config(job).data
    assert data.system_prompt == "Be brief."
    assert data.chat_template is not None
    assert (data.chat_template.name, data.chat_template.mounted) == (None, "/mnt/chat-template/chat_template.jinja")
    mounted = [mount for mount in STEPS[PREPARE].mounts(job) if isinstance(mount, ConfigMapMount)]
    assert [(mount.config_map, mount.key, mount.file) for mount in mounted] == [
        ("templates", "support.jinja", "chat_template.jinja")
    ]
    assert not any(isinstance(mount, ConfigMapMount) for mount in STEPS[TRAIN].mounts(job))
    named = run_config(run(dataset={"train": train, "chatTemplate": {"name": "ChatML"}})).data.chat_template
    assert named is not None
    assert (named.name, named.mounted) == ("ChatML", None)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"claim": {"name": "data", "path": "2026/**/*.jsonl.gz"}}, "/mnt/data/train/2026/**/*.jsonl.gz"),
        ({"configMap": {"name": "rows", "key": "rows.csv"}}, "/mnt/data/train/rows.csv"),
    ],
)
def test_globs_keys_of_any_kind_and_names_of_columns_pass_through(source: dict[str, Any], path: str) -> None:
    columns = {"prompt": "question", "completion": "answer"}
    config = run_config(run(dataset={"train": source, "columns": columns, "format": "PromptCompletion"}))
    assert (config.data.train, config.data.columns) == (path, columns)


@pytest.mark.parametrize(
    ("compute", "processes", "memory"),
    [
        ({}, 1, None),
        ({"gpuMemory": "80Gi"}, 1, 80 * 2**30),
        ({"gpusPerNode": 8, "gpuMemory": "80Gi"}, 8, 80 * 2**30),
        ({"gpusPerNode": 0}, 1, 8 * 2**30),
        ({"gpusPerNode": 0, "processesPerNode": 3}, 3, 8 * 2**30),
        ({"gpusPerNode": 0, "resources": {"limits": {"cpu": "4"}}}, 1, 8 * 2**30),
        ({"gpusPerNode": 0, "resources": {"limits": {"memory": "8Gi"}}}, 1, 8 * 2**30),
        ({"gpusPerNode": 0, "processesPerNode": 2, "resources": {"limits": {"memory": "8Gi"}}}, 2, 4 * 2**30),
        ({"gpusPerNode": 0, "resources": {"requests": {"memory": "8Gi"}}}, 1, None),
    ],
)
def test_processes_and_their_memory(compute: dict[str, Any], processes: int, memory: int | None) -> None:
    job = run(compute=compute)
    assert (job.processes_per_node, memory_per_process(job)) == (processes, memory)


@pytest.mark.parametrize("compute", [{}, {"processesPerNode": 4}, {"resources": {"limits": {"memory": "6G"}}}])
def test_on_the_cpu_the_plan_counts_on_the_limit_that_the_pod_has(compute: dict[str, Any]) -> None:
    config = run_config(job := run(compute={"gpusPerNode": 0, **compute}))
    (trainer,) = jobs.job(job, STEPS[TRAIN], Attempt(number=1), "config")["spec"]["template"]["spec"]["containers"]
    assert config.topology.memory_bytes == as_int(trainer["resources"]["limits"]["memory"]) // job.processes_per_node


def test_the_pods_read_what_was_written() -> None:
    job = run(hyperparameters={"epochs": 3, "learningRate": 2e-4}, method={"type": "Full"})
    body = config_map(job, config_map_name(job))
    assert body["immutable"] is True
    assert RunConfig.model_validate_json(body["data"]["run.json"]) == run_config(job)


def test_another_content_is_another_object() -> None:
    assert config_map_name(run()) == config_map_name(run())
    assert config_map_name(run()) != config_map_name(run(hyperparameters={"seed": 7}))
    assert config_map_name(run()) == config_map_name(run(suspend=True))


def test_the_digest_of_the_spec_ignores_what_may_change_at_any_time() -> None:
    assert run().spec_digest == run(suspend=True).spec_digest
    assert run().spec_digest != run(retry={"limit": 1}).spec_digest


def test_host_memory_is_what_the_spec_limits_for_each_gpu() -> None:
    limited = {"gpusPerNode": 2, "resources": {"limits": {"memory": "64Gi"}}}
    assert run_config(run(compute=limited)).topology.host_memory_bytes == 32 * 2**30
    for compute in ({"gpusPerNode": 2}, {**limited, "gpusPerNode": 0}, {"resources": {"limits": {"cpu": 4}}}):
        assert run_config(run(compute=compute)).topology.host_memory_bytes is None
    offloaded = run_config(run(compute={"offloadOptimizer": True, "offloadParam": False})).topology
    assert (offloaded.offload_optimizer, offloaded.offload_param) == (True, False)
