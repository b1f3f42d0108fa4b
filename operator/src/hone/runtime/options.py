"""The process's options, read from `HONE_*`: the core's Settings, and where to watch and listen."""

import json
import math
import os
import socket
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields

from pydantic import ValidationError

from hone.contract.stores import S3Store
from hone.core.allowlists import ANYTHING, AllowLists, chart_name
from hone.core.network import NetworkPeers
from hone.core.prices import MAX_CURRENCY, NO_PRICES, Prices
from hone.core.quantity import as_int
from hone.core.settings import Settings

LOG_LEVELS = ("debug", "info", "warning", "error")
LEAST: dict[str, float] = {
    "workers": 1,
    "progress_seconds": 0.1,
    "resync_seconds": 1,
    "refused_seconds": 0.1,
    "revision_seconds": 1,
    "lease_seconds": 3,
}
"""Minimum values of numbers, 0 by default: with intervals of 0 seconds the operator would reconcile without pause."""


class OptionError(Exception):
    """An environment variable with an invalid value; the message names it and the allowed values."""


@dataclass(frozen=True)
class Options:
    """How the process runs. Each field is set by `HONE_<FIELD IN CAPITALS>`.

    Attributes:
        settings: what the core depends on; its fields are set by variables of their own.
        watch_namespaces: namespaces to watch, separated by commas; empty: all.
        metrics_port: port of `/metrics`; 0: any free one.
        probe_port: port of `/healthz` and `/readyz`; 0: any free one.
        workers: maximum number of resources of a kind that are reconciled at a time. Of four or more, one namespace
            leaves one free; while others have work, it has a part of them, which is a fourth or more.
        log_level: debug, info, warning or error.
        drain_seconds: seconds that running reconciles may take to end after SIGTERM.
        refused_seconds: seconds until a write that the API server refused is retried.
        revision_seconds: how often to check whether the API server's revisions went back.
        pod_name: name of the operator's pod, for its Events.
        lease_name: name of the Lease that the operator which reconciles holds; empty: it reconciles without one.
        lease_namespace: the Lease's namespace.
        lease_seconds: how long the Lease is valid after each renewal, so how long a crashed operator is waited for.
    """

    settings: Settings = field(default_factory=Settings)
    watch_namespaces: tuple[str, ...] = ()
    metrics_port: int = 8080
    probe_port: int = 8081
    workers: int = 8
    log_level: str = "info"
    drain_seconds: float = 20.0
    refused_seconds: float = 60.0
    revision_seconds: float = 60.0
    pod_name: str = field(default_factory=socket.gethostname)
    lease_name: str = ""
    lease_namespace: str = ""
    lease_seconds: int = 15


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"HONE_{name.upper()}"


def from_environment(environ: Mapping[str, str] = os.environ) -> Options:
    """The options that the environment sets; the rest keep their defaults.

    Raises:
        OptionError: naming the variable.
    """
    values = {f.name: _value(f, Options, environ) for f in fields(Options) if variable(f.name) in environ}
    core = {f.name: _value(f, Settings, environ) for f in fields(Settings) if variable(f.name) in environ}
    options = Options(**values, settings=Settings(**core))
    if options.log_level not in LOG_LEVELS:
        raise OptionError(f"{variable('log_level')}={options.log_level!r}: use one of {', '.join(LOG_LEVELS)}")
    if size := options.settings.cache_size_limit:
        _check_quantity(variable("cache_size_limit"), size)
    if options.lease_name and not options.lease_namespace:
        raise OptionError(f"{variable('lease_namespace')} is empty: set the namespace of {variable('lease_name')}")
    return options


def _check_quantity(name: str, text: str) -> None:
    try:
        as_int(text)
    except ValueError:
        raise OptionError(f"{name}={text!r}: not a quantity, such as 500Gi") from None


def table() -> list[tuple[str, str]]:
    """Every variable with its default, for `--help`."""
    rows = [f for cls in (Options, Settings) for f in fields(cls) if f.name != "settings"]
    return [(variable(f.name), _shown(f)) for f in rows]


def _value(f: "Field[typing.Any]", cls: type, environ: Mapping[str, str]) -> typing.Any:
    text, kind = environ[variable(f.name)].strip(), typing.get_type_hints(cls)[f.name]
    if kind is str:
        return text
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            raise OptionError(f"{variable(f.name)}={text!r}: not a number") from None
        least = LEAST.get(f.name, 0)
        if not least <= number < 1e9:
            raise OptionError(f"{variable(f.name)}={text!r}: must be {least} or above, and below 1e9")
        return number
    if kind is AllowLists:
        return _allow_lists(variable(f.name), text) if text else ANYTHING
    if kind is Prices:
        return _prices(variable(f.name), text) if text else NO_PRICES
    if kind == NetworkPeers | None:
        return _network_peers(variable(f.name), text) if text else None
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    return _stores(variable(f.name), parts) if f.name == "s3_endpoints" else parts


def _stores(name: str, urls: tuple[str, ...]) -> tuple[str, ...]:
    """URLs of stores, as a spec could name them."""
    for url in urls:
        try:
            S3Store(endpoint=url)
        except ValidationError:
            raise OptionError(f"{name}: {url!r} is not a URL of a store, such as https://s3.example.com:9000") from None
    return urls


def _network_peers(name: str, text: str) -> NetworkPeers:
    """Who may connect to users' pods, from JSON with the fields of NetworkPeers."""
    lists = {f.name for f in fields(NetworkPeers)} - {"enforced"}
    try:
        value = json.loads(text)
        unknown = sorted(set(value) - lists - {"enforced"})
        rules = {key: tuple(value[key] or ()) for key in lists & set(value)}
    except (ValueError, TypeError) as error:
        raise OptionError(f"{name}: not a JSON object with lists: {error}") from None
    if unknown:
        raise OptionError(f"{name}: unknown {', '.join(unknown)}; use {', '.join(sorted(lists))} and enforced")
    if not all(isinstance(rule, dict) and rule for entries in rules.values() for rule in entries):
        raise OptionError(f"{name}: the lists must hold objects that are not empty: an empty one would mean anybody")
    return NetworkPeers(**rules, enforced=value.get("enforced") is True)


def _prices(name: str, text: str) -> Prices:
    """Prices of GPUs, from JSON with currency and perGpuHour."""
    try:
        value = json.loads(text)
        currency, hourly = value["currency"], {key: float(amount) for key, amount in value["perGpuHour"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OptionError(f"{name}: not a JSON object with currency and perGpuHour, a price by product") from None
    if wrong := [product for product, amount in hourly.items() if not 0 <= amount < math.inf]:
        raise OptionError(f"{name}: the prices of {', '.join(wrong)} must be numbers of 0 or more")
    if hourly and not (isinstance(currency, str) and 0 < len(currency) <= MAX_CURRENCY):
        raise OptionError(f"{name}: prices need a currency of at most {MAX_CURRENCY} characters, such as EUR")
    return Prices(currency, hourly)


def _allow_lists(name: str, text: str) -> AllowLists:
    """What users may ask for, from JSON with the lists of AllowLists under their names in the chart."""
    lists = {chart_name(f.name): f.name for f in fields(AllowLists)}
    try:
        value = json.loads(text)
        unknown = sorted(set(value) - set(lists))
        entries = {lists[key]: tuple(value[key]) for key in lists if key in value}
    except (ValueError, TypeError) as error:
        raise OptionError(f"{name}: not a JSON object with lists: {error}") from None
    if unknown:
        raise OptionError(f"{name}: unknown {', '.join(unknown)}; use {', '.join(lists)}")
    if not all(
        isinstance(each, list) and all(isinstance(entry, str) and entry for entry in each) for each in value.values()
    ):
        raise OptionError(f"{name}: the lists must hold texts that are not empty")
    return AllowLists(**entries)


def _shown(f: "Field[typing.Any]") -> str:
    if f.default is MISSING:
        return "the host name"
    if f.default is None or isinstance(f.default, AllowLists | Prices):
        return ""
    return ",".join(f.default) if isinstance(f.default, tuple) else str(f.default)
