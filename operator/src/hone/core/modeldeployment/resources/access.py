"""What guards a server: its module in a ConfigMap, the Secret with its keys, and what its pod needs of both."""

import json
from collections.abc import Mapping

from hone import guard
from hone.api.access import AccessStatus, ClientAccess, RequestLimits
from hone.core import names
from hone.core.children import ChildType, Write, metadata
from hone.core.modeldeployment.resources import vllm
from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import STEP, Server
from hone.core.observed import Object, Ref
from hone.core.podspec import ConfigMapMount, Mount, SecretMount, secret_volume

VERSION = 1
"""Raised when servers that run must be rolled out again to be guarded as this release does."""
METRICS_PORT = 8001
"""The port of metrics and of readiness."""
DRAIN_SECONDS = 5
"""Time for the endpoint's removal to reach every proxy before the server stops accepting connections."""
DRAIN: Object = {"path": "/drain", "port": "metrics"}
"""The preStop hook's request, which is answered after DRAIN_SECONDS."""
READY: Object = {"path": "/ready", "port": "metrics"}
"""The readiness probe's request: whether the server answers, and somebody may ask it."""
MODULE_DIRECTORY, KEYS_DIRECTORY = "/mnt/guard", "/mnt/keys"
FILE = f"{guard.MODULE}.py"
KEYS_VOLUME = secret_volume(KEYS_DIRECTORY)
DEFAULT_CLIENT = "default"
"""The entry of a Secret that Hone creates."""
CONFIG_MAP = ChildType("v1", "ConfigMap", Write.CREATE_ONCE, metadata_only=True)
SOURCE = guard.source()
"""The guard's text."""

_EVERY_API = {"/v1/models": "GET", "/tokenize": "POST", "/detokenize": "POST"}
_CLASSES = {**_EVERY_API, "/classify": "POST"}
PATHS: Mapping[str, Mapping[str, str]] = {
    "Chat": {
        **_EVERY_API,
        "/v1/chat/completions": "POST",
        "/v1/completions": "POST",
        "/v1/responses": "POST",
        "/v1/messages": "POST",
        "/v1/messages/count_tokens": "POST",
    },
    "Classify": _CLASSES,
    "Reward": _CLASSES,
}
"""The paths that a server of each API answers, and their methods."""


def status(server: Server) -> AccessStatus:
    """What status shows."""
    return AccessStatus(mode=server.access.mode, secret_name=secret_name(server))


def warning(server: Server) -> str:
    """What follows in the message of a server that is ready."""
    return "; open to everyone who can connect to it" if secret_name(server) is None else ""


def advice(server: Server) -> str:
    """What follows in the message of a server that does not become ready: without keys it never does."""
    name = secret_name(server)
    return f", and whether Secret {name!r} has a key" if name else ""


def secret_name(server: Server) -> str | None:
    """The Secret with the keys: the user's, or the one that is created; None if no key is needed."""
    if server.access.mode == ClientAccess.OPEN:
        return None
    reference = server.access.api_key_secret_ref
    return reference.name if reference else f"{names.unique(server.name, server.uid)}-keys"


def secret_of(deployment: Object) -> str | None:
    """The Secret with the keys of a Deployment's pods; None if they answer everybody."""
    secrets = (each["secret"]["secretName"] for each in _volumes(deployment) if each["name"] == KEYS_VOLUME)
    return next(secrets, None)


def is_guarded_by(deployment: Object, config_map: str) -> bool:
    """Whether a Deployment's pods cannot start without that ConfigMap."""
    return any((each.get("configMap") or {}).get("name") == config_map for each in _volumes(deployment))


def _volumes(deployment: Object) -> list[Object]:
    return deployment["spec"]["template"].get("spec", {}).get("volumes") or []


def module(server: Server) -> Ref:
    """The ConfigMap with the guard. Its name has a hash of its content, so that it never changes."""
    return CONFIG_MAP.ref(f"{names.unique(server.name, server.uid)}-guard-{names.digest(SOURCE)}")


def objects(server: Server) -> tuple[Object, ...]:
    """What has to exist before the server's pods: the ConfigMap with the guard, and the Secret if it is ours to create.

    The operator may create Secrets, and can read none. So the Secret has no key here: the runtime generates one when it
    creates the Secret, and whatever exists under the name stays as it is.
    """
    code: Object = {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata(server.resource, module(server).name, STEP),
        "immutable": True,
        "data": {FILE: SOURCE},
    }
    name = secret_name(server)
    if name is None or server.access.api_key_secret_ref:
        return (code,)
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(server.resource, name, STEP),
        "type": "Opaque",
        "stringData": {DEFAULT_CLIENT: ""},
    }
    return code, secret


def arguments() -> list[str]:
    """vLLM's arguments."""
    return [f"--middleware={guard.MODULE}.{guard.CLASS}"]


def environment(server: Server, served: ServedArtifact) -> dict[str, str]:
    """Variables, which users cannot set: their names are reserved."""
    limits = server.access.limits or RequestLimits()
    policy = {
        "keys": KEYS_DIRECTORY if secret_name(server) else None,
        "paths": PATHS[vllm.api_of(served)],
        "max_body_bytes": limits.max_body_bytes,
        "body_seconds": limits.body_seconds,
        "requests_per_minute": limits.requests_per_minute,
        "port": METRICS_PORT,
        "drain_seconds": DRAIN_SECONDS,
    }
    return {guard.VARIABLE: json.dumps(policy), "PYTHONPATH": MODULE_DIRECTORY}


def mounts(server: Server) -> list[Mount]:
    """The guard, and the keys. The pod starts without the Secret as well, and then refuses all requests."""
    code = ConfigMapMount(module(server).name, FILE, MODULE_DIRECTORY, FILE)
    name = secret_name(server)
    return [code, SecretMount(name, KEYS_DIRECTORY)] if name else [code]
