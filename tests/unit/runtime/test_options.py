"""The environment becomes options, or an error that names the variable."""

import pytest

from hone.core.allowlists import AllowLists
from hone.core.network import NetworkPeers
from hone.runtime.options import OptionError, Options, from_environment, table


def test_nothing_set_gives_the_defaults() -> None:
    assert from_environment({}) == Options()


def test_each_variable_sets_its_field() -> None:
    options = from_environment(
        {
            "HONE_TRAINER_IMAGE": "registry.example/trainer:1",
            "HONE_PROGRESS_SECONDS": "2.5",
            "HONE_WATCH_NAMESPACES": "one, two,",
            "HONE_METRICS_PORT": "9090",
            "HONE_LOG_LEVEL": "debug",
            "UNRELATED": "x",
        }
    )
    assert options.settings.trainer_image == "registry.example/trainer:1"
    assert options.settings.progress_seconds == 2.5
    assert options.watch_namespaces == ("one", "two")
    assert (options.metrics_port, options.log_level) == (9090, "debug")


def test_network_policies_are_for_the_peers_that_are_named() -> None:
    peers = from_environment(
        {"HONE_NETWORK_POLICIES": '{"operator": [{"podSelector": {}}], "egress": null, "enforced": true}'}
    ).settings.network_policies
    assert peers == NetworkPeers(operator=({"podSelector": {}},), enforced=True)
    assert from_environment({"HONE_NETWORK_POLICIES": ""}).settings.network_policies is None


def test_prices_are_by_product() -> None:
    text = '{"currency": "EUR", "perGpuHour": {"NVIDIA-A10G": 1.5, "default": 3}}'
    prices = from_environment({"HONE_PRICES": text}).settings.prices
    assert (prices.currency, prices.of("NVIDIA-A10G"), prices.of("Tesla-T4"), prices.of(None)) == ("EUR", 1.5, 3.0, 3.0)
    assert from_environment({"HONE_PRICES": ""}).settings.prices.of("NVIDIA-A10G") is None


def test_allow_lists_have_the_names_of_the_chart() -> None:
    lists = from_environment(
        {"HONE_ALLOW_LISTS": '{"priorityClasses": ["low", "batch-*"], "images": []}'}
    ).settings.allow_lists
    assert lists == AllowLists(priority_classes=("low", "batch-*"), images=())
    assert from_environment({"HONE_ALLOW_LISTS": ""}).settings.allow_lists == AllowLists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HONE_WORKERS", "many", "not a number"),
        ("HONE_WORKERS", "0", "must be 1 or above"),
        ("HONE_DRAIN_SECONDS", "-1", "must be 0 or above"),
        ("HONE_RESYNC_SECONDS", "nan", "must be 1 or above"),
        ("HONE_RESYNC_SECONDS", "0", "must be 1 or above"),
        ("HONE_PROGRESS_SECONDS", "0", "must be 0.1 or above"),
        ("HONE_REFUSED_SECONDS", "0", "must be 0.1 or above"),
        ("HONE_CACHE_SIZE_LIMIT", "500 GB", "not a quantity, such as 500Gi"),
        ("HONE_NETWORK_POLICIES", "[", "not a JSON object with lists"),
        ("HONE_NETWORK_POLICIES", '{"clients": 1}', "not a JSON object with lists"),
        ("HONE_NETWORK_POLICIES", '{"client": []}', "unknown client; use clients, egress, metrics, operator"),
        ("HONE_NETWORK_POLICIES", '{"clients": [{}]}', "an empty one would mean anybody"),
        ("HONE_PRICES", "[]", "not a JSON object with currency and perGpuHour"),
        ("HONE_PRICES", '{"currency": "EUR", "perGpuHour": {"a": "x"}}', "not a JSON object with currency"),
        ("HONE_PRICES", '{"currency": "EUR", "perGpuHour": {"a": -1}}', "the prices of a must be numbers of 0 or more"),
        ("HONE_PRICES", '{"currency": "", "perGpuHour": {"a": 1}}', "prices need a currency of at most 16 characters"),
        ("HONE_ALLOW_LISTS", "[", "not a JSON object with lists"),
        ("HONE_ALLOW_LISTS", '{"images": null}', "not a JSON object with lists"),
        ("HONE_ALLOW_LISTS", '{"images": "a"}', "the lists must hold texts that are not empty"),
        ("HONE_ALLOW_LISTS", '{"images": [""]}', "the lists must hold texts that are not empty"),
        ("HONE_ALLOW_LISTS", '{"image": []}', "unknown image; use priorityClasses, tolerations, annotations, images"),
        ("HONE_S3_ENDPOINTS", "https://s3.local,https://s3.local:99999", "s3.local:99999' is not a URL of a store"),
        ("HONE_S3_ENDPOINTS", "s3.local", "is not a URL of a store"),
        ("HONE_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ],
)
def test_what_cannot_be_understood_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as refusal:
        from_environment({name: value})
    assert name in str(refusal.value)


def test_help_knows_every_variable() -> None:
    names = [name for name, _ in table()]
    assert {"HONE_TRAINER_IMAGE", "HONE_WATCH_NAMESPACES", "HONE_PROBE_PORT"} <= set(names)
    assert len(names) == len(set(names))
