"""Models and data with a uri: what prepare is told, who gets the token, and to whom its pod may connect."""

import ipaddress
from typing import Any

import pytest

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.contract.results import DownloadedModel
from hone.contract.runconfig import Attempt, Download
from hone.contract.stores import S3Store
from hone.core.downloads import is_trusted
from hone.core.finetunejob.resources import jobs
from hone.core.finetunejob.resources.children import needed
from hone.core.finetunejob.resources.networkpolicy import download_policy
from hone.core.finetunejob.resources.runconfig import run_config
from hone.core.finetunejob.run import FINISH, PREPARE, TRAIN, Run
from hone.core.finetunejob.steps import STEPS
from hone.core.network import NetworkPeers
from hone.core.settings import Settings
from tests.unit.core import make

HUB = {"uri": "hf://acme/tiny", "revision": "v1", "credentialsSecretRef": {"name": "hub"}}
PUBLIC = ("8.8.8.8", "2606:4700::1111")
PRIVATE = ("10.96.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.100.100.200", "fd00::1")


def run(settings: Settings | None = None, **spec: Any) -> Run:
    """A job with a model of the Hub."""
    return Run(make.finetunejob(**{"model": HUB, **spec}), settings or Settings())


def variables(each: Run, step: str) -> dict[str, Any]:
    """The environment of a step's pods."""
    job = jobs.job(each, STEPS[step], Attempt(number=1), "config")
    containers = job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry for entry in containers[0]["env"]}


def test_prepare_is_told_what_to_download_and_the_other_steps_where_it_is() -> None:
    config = run_config(run())
    path = "/mnt/workspace/models/11111111-aaaa-model"
    assert config.materialize == [
        Download(
            field="spec.model",
            uri="hf://acme/tiny",
            revision="v1",
            downloaded=path,
            token_variable="HF_TOKEN_MODEL",
        )
    ]
    assert config.paths.model == path
    assert config.model_name == "hf://acme/tiny"


def test_the_administrators_mirror_is_used() -> None:
    entry = run_config(run(Settings(hub_endpoint="https://hub.internal"))).materialize[0]
    assert isinstance(entry, Download)
    assert entry.endpoint == "https://hub.internal"


def test_each_model_has_its_own_directory_and_token() -> None:
    teacher = {"uri": "hf://acme/large", "credentialsSecretRef": {"name": "other"}}
    each = run(objective="Distillation", teacher=teacher)
    entries = run_config(each).materialize
    assert len({entry.downloaded for entry in entries if isinstance(entry, Download)}) == 2
    secrets = {
        name: entry["valueFrom"]["secretKeyRef"]["name"]
        for name, entry in variables(each, PREPARE).items()
        if name.startswith("HF_TOKEN")
    }
    assert secrets == {"HF_TOKEN_MODEL": "hub", "HF_TOKEN_TEACHER": "other"}


@pytest.mark.parametrize("step", [TRAIN, FINISH])
def test_only_prepare_gets_the_token(step: str) -> None:
    token = variables(run(), PREPARE)["HF_TOKEN_MODEL"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}
    assert "HF_TOKEN_MODEL" not in variables(run(), step)


def test_a_variable_of_the_users_does_not_replace_the_token() -> None:
    env = [{"name": "HF_TOKEN_MODEL", "value": "mine"}]
    each = run(compute={"pod": {"env": env}})
    assert "value" not in variables(each, PREPARE)["HF_TOKEN_MODEL"]


def test_without_credentials_there_is_no_token() -> None:
    each = run(model={"uri": "hf://acme/tiny"})
    assert not [name for name in variables(each, PREPARE) if name.startswith("HF_TOKEN")]
    entry = run_config(each).materialize[0]
    assert isinstance(entry, Download)
    assert entry.token_variable is None


def test_an_adapter_is_merged_since_its_base_is_on_no_claim() -> None:
    assert run_config(run()).merge_output
    assert not run_config(Run(make.finetunejob(), Settings())).merge_output


def test_the_prepare_pod_alone_may_leave_and_only_to_public_addresses_by_https() -> None:
    policy = download_policy(run(Settings(network_policies=NetworkPeers())))
    assert policy["spec"]["podSelector"]["matchLabels"] == {"hone.dev/uid": "11111111-aaaa", "hone.dev/step": "prepare"}
    assert policy["spec"]["ingress"] == []
    [rule] = policy["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443]
    assert all(_is_allowed(rule, address) for address in PUBLIC)
    assert not any(_is_allowed(rule, address) for address in PRIVATE)


ROWS = {"uri": "s3://team/rows/", "s3": {"endpoint": "https://s3.internal"}, "credentialsSecretRef": {"name": "store"}}


def test_each_source_of_rows_has_its_own_directory_and_credentials() -> None:
    mixed = {"sources": [{"name": "a", **ROWS}, {"name": "b", "uri": "hf://datasets/acme/rows", "split": "dev"}]}
    test = {"uri": "https://example.com/rows.jsonl", "sha256": "0" * 64}
    each = run(dataset={"train": mixed, "test": test})
    config = run_config(each)
    entries = [entry for entry in config.materialize if isinstance(entry, Download) and entry.is_data]
    assert [(entry.field, entry.uri) for entry in entries] == [
        ("spec.dataset.test", "https://example.com/rows.jsonl"),
        ("spec.dataset.train.sources[0]", "s3://team/rows/"),
        ("spec.dataset.train.sources[1]", "hf://datasets/acme/rows"),
    ]
    assert len({entry.downloaded for entry in entries}) == 3
    store = entries[1]
    assert store.credentials is not None
    got = variables(each, PREPARE)
    keys = {key: got[name]["valueFrom"]["secretKeyRef"] for key, name in store.credentials.items()}
    assert keys == {
        "AWS_ACCESS_KEY_ID": {"name": "store", "key": "AWS_ACCESS_KEY_ID"},
        "AWS_SECRET_ACCESS_KEY": {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"},
        "AWS_SESSION_TOKEN": {"name": "store", "key": "AWS_SESSION_TOKEN", "optional": True},
    }
    assert not set(store.credentials.values()) & set(variables(each, TRAIN))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://team/rows/", "rows"),
        ("s3://team/rows.jsonl", "rows"),
        ("s3://team/**/*.jsonl", "rows/**/*"),
        ("hf://datasets/acme/rows", "rows/**/*"),
    ],
)
def test_a_prefix_is_read_as_a_directory_and_what_was_selected_by_name_whole(uri: str, path: str) -> None:
    config = run_config(run(dataset={"train": {"uri": uri}}))
    assert config.data.train == f"/mnt/workspace/data/11111111-aaaa-train/{path}"


@pytest.mark.parametrize(
    ("endpoint", "listed", "expected"),
    [
        ("https://s3.internal", ["https://s3.internal"], True),
        ("https://s3.internal/", ["https://s3.internal:443"], True),
        ("https://s3.internal:444", ["https://s3.internal"], None),
        ("http://s3.internal", ["https://s3.internal"], None),
        ("https://s3.internal.example.com", ["https://s3.internal"], None),
        (None, ["https://s3.internal"], None),
        ("https://s3.internal:65535", ["https://s3.internal:99999", "https://s3.internal:65535"], True),
    ],
)
def test_only_the_administrators_stores_may_have_private_addresses(
    endpoint: str | None, listed: list[str], expected: bool | None
) -> None:
    rows = {"uri": "s3://team/rows/", **({"s3": {"endpoint": endpoint}} if endpoint else {})}
    [entry, *_] = run_config(run(Settings(s3_endpoints=tuple(listed)), dataset={"train": rows})).materialize
    assert isinstance(entry, Download)
    assert entry.is_trusted is expected


@pytest.mark.parametrize(("port", "is_valid"), [("1", True), ("65535", True), ("65536", False), ("99999", False)])
def test_a_spec_may_name_only_ports_that_exist(port: str, is_valid: bool) -> None:
    digest = "sha256:" + "0" * 64
    places = (
        {"dataset": {"train": {"uri": "s3://team/rows/", "s3": {"endpoint": f"https://s3.internal:{port}"}}}},
        {"dataset": {"train": {"uri": f"https://example.com:{port}/rows.jsonl", "sha256": "0" * 64}}},
        {"model": {"image": {"reference": f"registry.example.com:{port}/team/model@{digest}"}}},
        {"output": {"uri": f"oci://registry.example.com:{port}/team/model:v1"}},
    )
    assert [bool(run(**fields).fault) for fields in places] == [not is_valid] * len(places)


def test_a_port_that_no_store_can_have_is_not_trusted() -> None:
    store = S3Store.model_construct(endpoint="https://s3.internal:99999")
    assert not is_trusted(store, Settings(s3_endpoints=("https://s3.internal", "https://s3.internal:99999")))


def _is_allowed(rule: dict[str, Any], address: str) -> bool:
    """As a network plugin decides it."""
    ip = ipaddress.ip_address(address)
    for block in (peer["ipBlock"] for peer in rule["to"]):
        inside = ip in ipaddress.ip_network(block["cidr"])
        if inside and not any(ip in ipaddress.ip_network(each) for each in block["except"]):
            return True
    return False


@pytest.mark.parametrize(
    ("model", "peers", "step", "expected"),
    [
        (HUB, NetworkPeers(), PREPARE, 1),
        (HUB, NetworkPeers(), TRAIN, 0),
        (HUB, None, PREPARE, 0),
        ({"claim": {"name": "base-models", "path": "tiny"}}, NetworkPeers(), PREPARE, 0),
        ({"uri": "s3://models/tiny"}, NetworkPeers(), PREPARE, 1),
    ],
)
def test_the_policy_exists_only_where_something_is_downloaded(
    model: dict[str, Any], peers: NetworkPeers | None, step: str, expected: int
) -> None:
    each = run(Settings(network_policies=peers), model=model)
    names = [row.name(each, "config") for row in needed(each, step)]
    assert names.count(each.download_policy) == expected


def test_the_policy_exists_where_rows_are_downloaded() -> None:
    model = {"claim": {"name": "base-models", "path": "tiny"}}
    each = run(Settings(network_policies=NetworkPeers()), model=model, dataset={"train": ROWS})
    assert each.download_policy in [row.name(each, "config") for row in needed(each, PREPARE)]


def test_status_tells_the_commit() -> None:
    model = DownloadedModel(field="spec.model", uri="hf://acme/tiny", revision="1" * 40, size_bytes=7)
    status = FineTuneJobStatus(downloads=[model])
    assert status.to_dict()["downloads"][0] == {
        "field": "spec.model",
        "uri": "hf://acme/tiny",
        "revision": "1" * 40,
        "sizeBytes": 7,
    }
