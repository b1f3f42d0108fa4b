"""The Jobs and the pods in them."""

import re
from typing import Any

import pytest

from hone.api.finetunejob import StepName
from hone.contract.runconfig import Attempt
from hone.core.finetunejob.resources import jobs
from hone.core.finetunejob.resources.jobs import job
from hone.core.finetunejob.resources.runconfig import run_config
from hone.core.finetunejob.run import FINISH, PREPARE, PUBLISH, TRAIN, Run
from hone.core.finetunejob.sources.source import Source
from hone.core.finetunejob.steps import STEPS
from hone.core.settings import Settings
from tests.unit.core import make


def rendered(step: str = TRAIN, attempt: int = 1, settings: Settings | None = None, **spec: Any) -> dict[str, Any]:
    run = Run(make.finetunejob(**spec), settings or Settings())
    return job(run, STEPS[step], Attempt(number=attempt), "config")


def pod(body: dict[str, Any]) -> dict[str, Any]:
    return dict(body["spec"]["template"]["spec"])


def container(body: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(body)["containers"]
    return dict(only)


def mounts(body: dict[str, Any]) -> dict[str, bool]:
    """Mount paths, and whether they are read-only."""
    return {mount["mountPath"]: mount.get("readOnly", False) for mount in container(body)["volumeMounts"]}


@pytest.mark.parametrize("step", STEPS)
def test_every_pod_is_restricted(step: str) -> None:
    body = rendered(step)
    assert pod(body)["automountServiceAccountToken"] is False
    assert pod(body)["enableServiceLinks"] is False
    assert pod(body)["restartPolicy"] == "Never"
    assert pod(body)["securityContext"]["runAsNonRoot"] is True
    assert pod(body)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(body)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


READING = [name for name, step in STEPS.items() if step.reads_models]


@pytest.mark.parametrize("step", READING)
def test_a_teacher_is_where_the_run_config_says(step: str) -> None:
    run = Run(
        make.finetunejob(objective="Distillation", teacher={"claim": {"name": "models", "path": "a/b"}}), Settings()
    )
    body = job(run, STEPS[step], Attempt(number=1), "config")
    assert run_config(run).paths.teacher == "/mnt/teacher/a/b"
    assert mounts(body)["/mnt/teacher"] is True


@pytest.mark.parametrize("step", READING)
def test_reward_model_and_functions_are_where_the_run_config_says(step: str) -> None:
    key = {"name": "rewards", "key": "brevity.py"}
    functions = [{"name": "Regex", "pattern": "a", "weight": 0.5}, {"configMap": key}]
    reward = {"model": {"claim": {"name": "models", "path": "a/b"}}, "functions": functions}
    run = Run(make.finetunejob(objective="GRPO", reward=reward), Settings())
    body = job(run, STEPS[step], Attempt(number=1), "config")
    config = run_config(run)
    assert config.paths.reward_model == "/mnt/reward-model/a/b"
    built_in, own = config.reward.functions if config.reward else ()
    assert (built_in.name, built_in.pattern, built_in.weight, built_in.file) == ("Regex", "a", 0.5, None)
    assert (own.source, own.function, own.mounted) == ("rewards/brevity.py", "reward", "/mnt/rewards/1/reward.py")
    assert own.file == f"{config.paths.run}/rewards/rewards/brevity.py"
    assert mounts(body)["/mnt/reward-model"] is True
    if step != PREPARE:
        assert "/mnt/rewards/1" not in mounts(body), "it may change meanwhile: they run prepare's copy"
        return
    assert mounts(body)["/mnt/rewards/1"] is True
    made_from = [volume["configMap"] for volume in pod(body)["volumes"] if "configMap" in volume]
    (volume,) = (volume for volume in made_from if volume["name"] == "rewards")
    assert volume["items"] == [{"key": "brevity.py", "path": "reward.py"}]


OWN_DIRECTORY = "/mnt/workspace/team-a/support-bot/11111111-aaaa"


@pytest.mark.parametrize(
    ("step", "command", "paths"),
    [
        (PREPARE, "hone_trainer.prepare", {"/mnt/data/train": True, "/mnt/workspace": False}),
        (TRAIN, "hone_trainer.launch", {OWN_DIRECTORY: False, "/mnt/workspace/prepared": True}),
        (FINISH, "hone_trainer.finish", {"/mnt/output": False, "/mnt/workspace": False}),
        (PUBLISH, "hone_trainer.publish", {"/mnt/output": True}),
    ],
)
def test_what_each_step_runs_and_sees(step: str, command: str, paths: dict[str, bool]) -> None:
    body = rendered(step)
    assert container(body)["command"] == ["python", "-m", command]
    everywhere = {"/etc/hone": True, "/tmp": False, "/dev/shm": False}
    models = {"/mnt/model": True} if step in READING else {}
    assert mounts(body) == {**everywhere, **models, **paths}


def test_a_benchmark_is_mounted_where_it_is_checked_and_scored_and_nowhere_else() -> None:
    benchmarks = [{"name": "faq", "configMap": {"name": "questions", "key": "faq.jsonl"}}]
    seen = {step: mounts(rendered(step, evaluation={"benchmarks": benchmarks})) for step in STEPS}
    assert {step: places.get("/mnt/benchmarks/faq") for step, places in seen.items()} == {
        PREPARE: True,
        TRAIN: None,
        FINISH: True,
        PUBLISH: None,
    }


def test_volumes_of_files_have_names_of_their_own_that_kubernetes_takes() -> None:
    rows = {"configMap": {"name": "rows", "key": "a"}}
    evaluation = {
        "benchmarks": [{"name": "b" * 62 + end, **rows} for end in "xy"],
        "scorers": [{"name": name, **rows} for name in ("answerLength", "answerlength")],
    }
    body = rendered(FINISH, evaluation=evaluation)
    names = [mount["name"] for mount in container(body)["volumeMounts"]]
    paths = {f"/mnt/{kind}/{each['name']}" for kind, entries in evaluation.items() for each in entries}
    assert paths <= {*mounts(body)}
    assert len({*names}) == len(mounts(body)) == len(pod(body)["volumes"])
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


def test_training_sees_its_own_directory_of_the_workspace_and_reads_what_jobs_share() -> None:
    body = rendered(TRAIN, workspace={"claimName": "shared"})
    mounted = {
        mount["mountPath"]: (mount["subPath"], mount.get("readOnly", False))
        for mount in container(body)["volumeMounts"]
        if mount["mountPath"].startswith("/mnt/workspace")
    }
    assert mounted == {
        OWN_DIRECTORY: ("team-a/support-bot/11111111-aaaa", False),
        "/mnt/workspace/prepared": ("prepared", True),
    }
    run = Run(make.finetunejob(workspace={"claimName": "shared"}), Settings())
    assert run_config(run).paths.run == OWN_DIRECTORY


def test_a_claim_that_is_used_twice_is_one_volume() -> None:
    data = {"train": {"claim": {"name": "base-models", "path": "data"}}}
    body = rendered(PREPARE, dataset=data, workspace={"claimName": "base-models"})
    claims = [volume for volume in pod(body)["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == 1
    assert mounts(body)["/mnt/model"] and not mounts(body)["/mnt/workspace"]


def volumes(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each mount path is mounted from."""
    by_name = {volume["name"]: volume for volume in pod(body)["volumes"]}
    return {mount["mountPath"]: by_name[mount["name"]] for mount in container(body)["volumeMounts"]}


@pytest.mark.parametrize("step", STEPS)
def test_what_is_only_read_is_a_read_only_volume(step: str) -> None:
    data = {"train": {"claim": {"name": "data", "path": "rows.jsonl"}}}
    mounted = volumes(rendered(step, dataset=data))
    read = {path for path, volume in mounted.items() if volume.get("persistentVolumeClaim", {}).get("readOnly")}
    others = {PREPARE: {"/mnt/model", "/mnt/data/train"}, PUBLISH: {"/mnt/output"}}
    assert read == others.get(step, {"/mnt/model"})


def test_a_claim_that_is_read_and_written_is_no_read_only_volume() -> None:
    mounted = volumes(rendered(workspace={"claimName": "base-models"}))
    assert mounted["/mnt/model"] == mounted[OWN_DIRECTORY]
    assert "readOnly" not in mounted["/mnt/model"]["persistentVolumeClaim"]


@pytest.mark.parametrize("step", STEPS)
def test_scratch_space_is_bounded(step: str) -> None:
    mounted = volumes(rendered(step, compute={"gpusPerNode": 2}))
    assert mounted["/tmp"]["emptyDir"] == {"sizeLimit": "10Gi"}
    assert mounted["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi" if step == TRAIN else "1Gi"}


@pytest.mark.parametrize(
    ("step", "compute", "want"),
    [
        (TRAIN, {"gpusPerNode": 4}, {"memory": "512Gi", "nvidia.com/gpu": "4"}),
        (TRAIN, {"gpusPerNode": 2, "gpuResource": "amd.com/gpu"}, {"memory": "256Gi", "amd.com/gpu": "2"}),
        (TRAIN, {"resources": {"limits": {"memory": "8Gi"}}}, {"memory": "8Gi", "nvidia.com/gpu": "1"}),
        (TRAIN, {"resources": {"limits": {"cpu": 4}}}, {"cpu": "4", "memory": "128Gi", "nvidia.com/gpu": "1"}),
        (TRAIN, {"resources": {"requests": {"memory": "1Gi"}}}, {"nvidia.com/gpu": "1"}),
        (TRAIN, {"gpusPerNode": 0, "processesPerNode": 3}, {"memory": "24Gi"}),
        (PREPARE, {"gpusPerNode": 4}, {"memory": "8Gi"}),
        (FINISH, {"gpusPerNode": 4}, {"memory": "512Gi", "nvidia.com/gpu": "1"}),
        (FINISH, {"gpusPerNode": 0}, {"memory": "8Gi"}),
    ],
)
def test_limits(step: str, compute: dict[str, Any], want: dict[str, str] | None) -> None:
    assert container(rendered(step, compute=compute))["resources"].get("limits") == want


@pytest.mark.parametrize(
    ("compute", "want"),
    [
        ({"gpusPerNode": 1}, ("166Gi", "166Gi")),
        ({"gpusPerNode": 2}, ("166Gi", "256Gi")),
        ({"gpusPerNode": 1, "resources": {"requests": {"cpu": 1}}}, ("166Gi", "166Gi")),
        ({"gpusPerNode": 1, "resources": {"limits": {"memory": "200Gi"}}}, (None, "200Gi")),
    ],
)
def test_trainer_pods_request_the_host_memory_that_the_plan_needs(
    compute: dict[str, Any], want: tuple[str | None, str]
) -> None:
    planned = {"plan": {"hostMemoryBytes": int(165.6 * 2**30)}}
    run = Run({**make.finetunejob(compute=compute), "status": planned}, Settings())
    resources = container(job(run, STEPS[TRAIN], Attempt(number=1), "config"))["resources"]
    assert (resources.get("requests", {}).get("memory"), resources["limits"]["memory"]) == want


def test_the_gang_meets_at_pod_zero() -> None:
    body = rendered(attempt=3, compute={"gpusPerNode": 0, "nodes": 4})
    env = {entry["name"]: entry.get("value") for entry in container(body)["env"]}
    assert (body["spec"]["completions"], body["spec"]["parallelism"], body["spec"]["backoffLimit"]) == (4, 4, 0)
    assert env["HONE_MASTER"] == f"{body['metadata']['name']}-0.{pod(body)['subdomain']}"
    alone = rendered()
    assert "subdomain" not in pod(alone)
    assert "HONE_MASTER" not in {entry["name"] for entry in container(alone)["env"]}


def test_the_users_settings_are_merged_but_ours_win() -> None:
    settings = {
        "labels": {"team": "a", "hone.dev/uid": "mine"},
        "annotations": {"note": "x", "hone.dev/owner": "mine"},
        "env": [{"name": "WANDB_MODE", "value": "offline"}, {"name": "HONE_ATTEMPT", "value": "9"},
                {"name": "HONE_POD_UID", "value": "9"}],
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "priorityClassName": "low",
        "imagePullSecrets": [{"name": "registry"}],
    }  # fmt: skip
    body = rendered(compute={"gpusPerNode": 0, "pod": settings})
    meta = body["spec"]["template"]["metadata"]
    env = [entry["name"] for entry in container(body)["env"]]
    assert meta["labels"]["team"] == "a" and meta["labels"]["hone.dev/uid"] == "11111111-aaaa"
    assert meta["annotations"]["note"] == "x"
    assert meta["annotations"]["hone.dev/owner"] == "FineTuneJob/support-bot"
    assert sorted(env) == ["HONE_ATTEMPT", "HONE_POD_UID", "WANDB_MODE"]
    assert {entry["name"]: entry.get("value") for entry in container(body)["env"]}["HONE_ATTEMPT"] == '{"number":1}'
    chosen = {key: pod(body)[key] for key in ("nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets")}
    assert chosen == {key: settings[key] for key in chosen}


def test_a_variable_may_come_from_a_secret_which_the_kubelet_reads() -> None:
    key = {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
    maybe = {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}
    users = [{"name": "WANDB_API_KEY", "valueFrom": key}, {"name": "HF_TOKEN", "valueFrom": maybe}, {"name": "EMPTY"}]
    env = container(rendered("train", compute={"gpusPerNode": 0, "pod": {"env": users}}))["env"]
    theirs = [entry for entry in env if not entry["name"].startswith("HONE_")]
    assert theirs == [*users[:2], {"name": "EMPTY", "value": ""}]


KEY = {"secretKeyRef": {"name": "judge", "key": "token"}}
REWARDED = {"objective": "GRPO", "reward": {"functions": [{"configMap": {"name": "mine", "key": "reward.py"}}]}}
MATCHED = {"objective": "GRPO", "reward": {"functions": [{"name": "ExactMatch"}]}}


@pytest.mark.parametrize(
    ("variable", "spec", "steps"),
    [
        ({"value": "x"}, {}, ["prepare", "train", "finish", "publish"]),
        ({}, {}, ["prepare", "train", "finish", "publish"]),
        ({"valueFrom": KEY, "steps": ["Publish"]}, {}, ["publish"]),
        ({"value": "x", "steps": ["Train"]}, {}, ["train"]),
        ({"valueFrom": KEY}, {}, ["train"]),
        ({"valueFrom": KEY}, MATCHED, ["train"]),
        ({"valueFrom": KEY}, REWARDED, ["train", "finish"]),
        ({"valueFrom": KEY, "steps": ["Train"]}, REWARDED, ["train"]),
        ({"valueFrom": KEY, "steps": ["Prepare", "Finish"]}, {}, ["prepare", "finish"]),
        ({"valueFrom": KEY, "steps": ["Prepare", "Train", "Finish"]}, {}, ["prepare", "train", "finish"]),
    ],
)
def test_a_variable_reaches_only_the_steps_that_it_is_meant_for(
    variable: dict[str, Any], spec: dict[str, Any], steps: list[str]
) -> None:
    compute = {"gpusPerNode": 0, "pod": {"env": [{"name": "TOKEN", **variable}]}}
    reached = {}
    for step in STEPS:
        env = {entry["name"]: entry for entry in container(rendered(step, compute=compute, **spec))["env"]}
        reached |= {step: env["TOKEN"]} if "TOKEN" in env else {}
    assert list(reached) == steps
    # Kubernetes knows no such field.
    assert not [entry for entry in reached.values() if "steps" in entry]


def test_the_steps_of_a_variable_are_those_of_a_job() -> None:
    assert [name.lower() for name in StepName] == list(STEPS)


def test_no_secret_stands_in_for_what_we_tell() -> None:
    mine = {"name": "HONE_ATTEMPT", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}
    env = container(rendered(compute={"gpusPerNode": 0, "pod": {"env": [mine]}}))["env"]
    assert [entry for entry in env if entry["name"] == "HONE_ATTEMPT"] == [
        {"name": "HONE_ATTEMPT", "value": '{"number":1}'}
    ]


def test_images_and_grace() -> None:
    settings = Settings(trainer_image="trainer:1", image_pull_policy="Always")
    body = rendered(settings=settings, checkpoint={"gracePeriodSeconds": 300})
    assert (container(body)["image"], container(body)["imagePullPolicy"]) == ("trainer:1", "Always")
    assert pod(body)["terminationGracePeriodSeconds"] == 300
    assert container(rendered(compute={"image": "mine:2"}))["image"] == "mine:2"
    assert "imagePullPolicy" not in container(rendered())


def test_nothing_but_plain_values_goes_to_the_api_server() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                assert type(key) is str
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)
        else:
            assert type(value) in (str, int, float, bool), value

    check(rendered(compute={"nodes": 2}))


@pytest.mark.parametrize(("prepare_only", "readers"), [(False, ["prepare", "train", "finish"]), (True, ["prepare"])])
def test_the_variables_of_a_source_reach_the_pods_that_read_it(
    monkeypatch: pytest.MonkeyPatch, prepare_only: bool, readers: list[str]
) -> None:
    remote = Source(path="/mnt/model", env={"HF_ENDPOINT": "mirror"}, prepare_only=prepare_only)
    monkeypatch.setattr(jobs, "sources", lambda run: [remote])
    entry = {"name": "HF_ENDPOINT", "value": "mirror"}
    assert [step for step in STEPS if entry in container(rendered(step))["env"]] == readers
