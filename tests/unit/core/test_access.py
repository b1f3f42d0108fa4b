"""Who may ask a server: the Secret with its keys, what the guard is started with, and what status shows of both."""

import json
from typing import Any

import pytest

from hone import guard
from hone.api.modeldeployment import Role
from hone.core.modeldeployment.resources import access
from hone.core.modeldeployment.resources.deployment import deployment, inputs
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import Server
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.fake_cluster import FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import cluster, roll_out, served
from tests.unit.core.test_modeldeployment_lifecycle import deployment as live
from tests.unit.core.test_vllm import served as artifact
from tests.unit.core.test_vllm import server

OPEN = {"mode": "Open"}


def pod(what: ServedArtifact | None = None, **spec: Any) -> dict[str, Any]:
    """The spec of a server's pods."""
    rendered = deployment(server(**spec), what or artifact(), Role.STABLE)
    return dict(rendered["spec"]["template"]["spec"])


def policy(what: ServedArtifact | None = None, **spec: Any) -> dict[str, Any]:
    """The guard's policy, as its pod has it."""
    (container,) = pod(what, **spec)["containers"]
    (text,) = [entry["value"] for entry in container["env"] if entry["name"] == guard.VARIABLE]
    return dict(json.loads(text))


def secrets(fake: FakeCluster) -> dict[str, dict[str, Any]]:
    """The Secrets that exist, by name."""
    return {ref.name: obj for ref, obj in fake.objects.items() if ref.kind == "Secret"}


def test_a_server_has_a_key_although_its_spec_says_nothing() -> None:
    fake = served()
    (name,) = secrets(fake)
    assert fake.status["access"] == {"mode": "Key", "secretName": name}
    volumes = {volume["name"]: volume for volume in live(fake)["spec"]["template"]["spec"]["volumes"]}
    assert volumes["secret-mnt-keys"]["secret"] == {"secretName": name, "optional": True, "defaultMode": 0o440}
    assert policy()["keys"] == access.KEYS_DIRECTORY


def test_a_guard_that_somebody_deleted_comes_back_and_one_that_nobody_uses_does_not() -> None:
    fake = served()
    ref = access.module(Server(fake.resource, fake.settings))
    body = fake.objects.pop(ref)
    fake.converge()
    assert fake.objects[ref]["data"] == body["data"]
    for volume in live(fake)["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = "bot-of-an-earlier-release-guard"
    del fake.objects[ref]
    fake.converge()
    assert ref not in fake.objects


def test_no_plan_has_a_key() -> None:
    fake = cluster(make.complete_job("sha256:" + "a" * 64))
    fake.converge()
    (secret,) = secrets(fake).values()
    assert (secret["type"], secret["stringData"], "data" in secret) == ("Opaque", {"default": ""}, False)
    # It ends with its resource.
    (owner,) = secret["metadata"]["ownerReferences"]
    assert owner["uid"] == fake.resource["metadata"]["uid"]


def test_the_secret_is_never_read_and_stays_as_it_is() -> None:
    fake = served()
    (name,) = secrets(fake)
    fake.objects[Ref("v1", "Secret", name)] = {"theirs": True}
    fake.edit(servedName="other").converge()
    roll_out(fake)
    fake.converge()
    assert secrets(fake) == {name: {"theirs": True}}
    kind_of = {ref.kind for ref in fake.observe(fake.subject()).objects}
    assert "ConfigMap" in kind_of
    assert "Secret" not in kind_of


def test_a_secret_of_the_users_is_mounted_and_none_is_created() -> None:
    fake = served(access={"apiKeySecretRef": {"name": "clients"}})
    assert secrets(fake) == {}
    assert fake.status["access"] == {"mode": "Key", "secretName": "clients"}
    volumes = live(fake)["spec"]["template"]["spec"]["volumes"]
    assert [volume["secret"]["secretName"] for volume in volumes if "secret" in volume] == ["clients"]


def test_open_has_to_be_written_and_is_shown() -> None:
    fake = served(access=OPEN)
    assert secrets(fake) == {}
    assert fake.status["access"] == {"mode": "Open"}
    assert fake.message("Ready").endswith("open to everyone who can connect to it")
    assert policy(access=OPEN)["keys"] is None
    assert not any("secret" in volume for volume in pod(access=OPEN)["volumes"])
    assert "open" not in served().message("Ready")


def test_an_open_server_with_a_secret_is_refused() -> None:
    fake = cluster(make.complete_job("sha256:" + "a" * 64), access={**OPEN, "apiKeySecretRef": {"name": "clients"}})
    fake.converge()
    assert fake.condition("Stalled") == ("True", "InvalidSpec")
    assert "spec.access.apiKeySecretRef" in fake.message("Stalled")


@pytest.mark.parametrize("api", ["Chat", "Classify", "Reward"])
def test_only_the_paths_of_its_api_are_answered(api: str) -> None:
    paths = policy(artifact(api=api, kind="Model"))["paths"]
    assert ("/v1/chat/completions" in paths, "/classify" in paths) == (api == "Chat", api != "Chat")
    assert not {"/metrics", "/health", "/pooling", "/invocations", "/v1/load_lora_adapter"} & set(paths)


def test_limits_reach_the_guard() -> None:
    assert (policy()["requests_per_minute"], policy()["max_body_bytes"]) == (None, 4 << 20)
    limits = {"requestsPerMinute": 30, "maxBodyBytes": 2048, "bodySeconds": 5}
    limited = policy(access={"limits": limits})
    assert (limited["requests_per_minute"], limited["max_body_bytes"], limited["body_seconds"]) == (30, 2048, 5)


def test_vllm_loads_the_guard_last_whatever_the_user_adds() -> None:
    (container,) = pod(runtime={"args": ["--max-model-len=512"]})["containers"]
    assert container["args"][-2:] == ["--max-model-len=512", "--middleware=hone_guard.Guard"]
    assert {"name": "PYTHONPATH", "value": access.MODULE_DIRECTORY} in container["env"]
    compile(guard.source(), access.FILE, "exec")


def test_the_guards_text_is_in_an_immutable_config_map_of_its_own_name() -> None:
    code = access.objects(server())[0]
    assert (code["immutable"], code["data"]) == (True, {access.FILE: guard.source()})
    (volume,) = [volume for volume in pod()["volumes"] if "configMap" in volume]
    assert volume["configMap"]["name"] == code["metadata"]["name"]


def test_a_server_without_keys_is_not_ready_but_lives() -> None:
    (container,) = pod()["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    health = {"path": "/health", "port": "http"}
    assert probes == {"startup": health, "liveness": health, "readiness": {"path": "/ready", "port": "metrics"}}


def test_servers_that_run_are_rolled_out_again_once_a_release_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs(server(), artifact())
    monkeypatch.setattr(access, "SOURCE", "another release")
    assert inputs(server(), artifact()) == before
    monkeypatch.setattr(access, "VERSION", access.VERSION + 1)
    assert inputs(server(), artifact()) != before


def test_each_deployment_has_a_secret_of_its_own() -> None:
    again = Server(
        make.modeldeployment() | {"metadata": {**make.modeldeployment()["metadata"], "uid": "other"}}, server().settings
    )
    assert access.secret_name(again) != access.secret_name(server())
