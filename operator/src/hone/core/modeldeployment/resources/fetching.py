"""The containers that read a published model: what they are to fetch, with which mounts and credentials.

Only these containers get credentials. A downloaded model is in a scratch volume of the pod, so that servers may run on
any node and in any number, and nothing else can write to what they read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone.api.served_model import ServedModel
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone.contract.served import FETCH_ENV, Fetch
from hone.core.downloads import Fetched, SecretKey, fetched
from hone.core.modeldeployment.resolution import BASE_PATH
from hone.core.modeldeployment.resources import vllm
from hone.core.modeldeployment.server import Server
from hone.core.observed import Object
from hone.core.podspec import ClaimMount, ImageMount, Mount, ScratchMount, env

MODULE = "hone_trainer.fetch"
MODEL, BASE = "spec.model", "spec.model.base"


@dataclass(frozen=True)
class Fetching:
    """What a container needs to read a published model.

    Attributes:
        fetch: what it is to read.
        mounts: its mounts. Of the server, they are the same, but read-only.
        secrets: its variables from Secrets.
    """

    fetch: Fetch
    mounts: tuple[Mount, ...]
    secrets: Mapping[str, SecretKey]


def fetching(server: Server, model: ServedModel, base_digest: str | None, read_only: bool = False) -> Fetching:
    """What a container needs to read a published model.

    Args:
        server: the ModelDeployment.
        model: where the model is.
        base_digest: digest of the base of an adapter; None: not known, or there is none.
        read_only: whether the container only reads what another one has downloaded.
    """
    artifact, base = _artifact(server, model), _base(server, model)
    fetch = Fetch(
        directory=vllm.directory_of(model),
        artifact=artifact.entry.model_copy(update={"sums": model.digest or ""}) if artifact else None,
        digest=model.digest,
        base_directory=_base_directory(model),
        base=base.entry if base else None,
        base_digest=base_digest,
    )
    secrets = {**(artifact.secrets if artifact else {}), **(base.secrets if base else {})}
    return Fetching(fetch, tuple(_mounts(model, read_only)), secrets)


def downloads(model: ServedModel | None) -> bool:
    """Whether pods download the model, or its base."""
    return model is not None and (model.uri is not None or (model.base is not None and model.base.uri is not None))


def container(server: Server, name: str, task: str, needs: Fetching, resources: Mapping[str, Any]) -> Object:
    """A container that reads a published model.

    Args:
        server: the ModelDeployment.
        name: the container's name.
        task: what it does: `inspect` or `fetch`.
        needs: what it needs.
        resources: its resources.
    """
    policy = server.settings.image_pull_policy
    settings = server.spec.pod.env if server.spec.pod else None
    # Plain values, such as a proxy's address: no other Secret is needed here.
    users = [entry for entry in settings or [] if entry.value_from is None and entry.name not in needs.secrets]
    variables = env({FETCH_ENV: needs.fetch.to_json()}, users)
    return {
        "name": name,
        "image": server.settings.trainer_image,
        "command": ["python", "-m", MODULE],
        "args": [task],
        "env": [*variables, *(key.variable(variable) for variable, key in needs.secrets.items())],
        "resources": dict(resources),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"imagePullPolicy": policy} if policy else {}),
    }


def _artifact(server: Server, model: ServedModel) -> Fetched | None:
    if model.uri is None:
        return None
    return fetched(server.settings, MODEL, "model", model, vllm.SERVED_DIRECTORY)


def _base(server: Server, model: ServedModel) -> Fetched | None:
    if model.base is None or model.base.uri is None:
        return None
    return fetched(server.settings, BASE, "base", model.base, f"{vllm.MODEL_DIRECTORY}/{BASE_PATH}")


def _base_directory(model: ServedModel) -> str | None:
    base = model.base
    if base is None:
        return None
    path = base.claim.path if base.claim else base.image.path if base.image else BASE_PATH
    return f"{vllm.MODEL_DIRECTORY}/{path}" if path else vllm.MODEL_DIRECTORY


def _mounts(model: ServedModel, read_only: bool) -> list[Mount]:
    mounts: list[Mount] = []
    if model.image:
        mounts.append(ImageMount(model.image.reference, vllm.SERVED_DIRECTORY))
    else:
        mounts.append(ScratchMount("artifact", vllm.CLAIM_DIRECTORY, read_only=read_only))
    if model.base and model.base.claim:
        mounts.append(ClaimMount(model.base.claim.name, vllm.MODEL_DIRECTORY))
    elif model.base and model.base.image:
        mounts.append(ImageMount(model.base.image.reference, vllm.MODEL_DIRECTORY))
    elif model.base:
        mounts.append(ScratchMount("base", vllm.MODEL_DIRECTORY, read_only=read_only))
    return mounts
