"""What pods download: where from, where to, with which variables; the same for models and data of both kinds."""

import re
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from hone.contract.objects import LocalReference
from hone.contract.runconfig import Download
from hone.contract.stores import S3_KEYS, S3_OPTIONAL_KEYS, S3Store
from hone.core.observed import Object
from hone.core.settings import Settings

TOKEN_KEY = "HF_TOKEN"
"""The key of a Secret that has an access token of the Hugging Face Hub; huggingface_hub's own name for it."""


class SecretKey(NamedTuple):
    """A key of a Secret in the resource's namespace. The kubelet reads it, Hone may not.

    Attributes:
        secret: the Secret's name.
        key: the key.
        optional: whether pods start without it.
    """

    secret: str
    key: str
    optional: bool = False

    def variable(self, name: str) -> Object:
        """An environment variable with its value."""
        reference = {"name": self.secret, "key": self.key, **({"optional": True} if self.optional else {})}
        return {"name": name, "valueFrom": {"secretKeyRef": reference}}


class Fetched(NamedTuple):
    """A download and its credentials.

    Attributes:
        entry: what to download.
        secrets: variables of the container that downloads, by name.
    """

    entry: Download
    secrets: dict[str, SecretKey]


class Remote(Protocol):
    """The fields of a spec that name something to download."""

    @property
    def uri(self) -> str | None:
        """Where it is."""

    @property
    def revision(self) -> str | None:
        """hf://: branch, tag or commit."""

    @property
    def s3(self) -> S3Store | None:
        """s3://: the store."""

    @property
    def credentials_secret_ref(self) -> LocalReference | None:
        """The Secret with credentials."""


def fetched(settings: Settings, field: str, name: str, source: Remote, into: str) -> Fetched:
    """What to download of the Hugging Face Hub or of an S3-compatible store.

    Args:
        settings: the operator's.
        field: path of the field that names it.
        name: what distinguishes its variables from those of other downloads: `model`, `train/0`.
        source: the fields of the spec.
        into: the directory to write it to, which is this resource's: a branch may move before the next one.
    """
    make = _from_s3 if (source.uri or "").startswith("s3://") else _from_hub
    return make(settings, field, name, source, into)


def _from_hub(settings: Settings, field: str, name: str, source: Remote, into: str) -> Fetched:
    secret, variable = source.credentials_secret_ref, _variable(TOKEN_KEY, name)
    entry = Download(
        field=field,
        uri=source.uri or "",
        revision=source.revision,
        downloaded=into,
        endpoint=settings.hub_endpoint or None,
        token_variable=variable if secret else None,
    )
    return Fetched(entry, {variable: SecretKey(secret.name, TOKEN_KEY)} if secret else {})


def _from_s3(settings: Settings, field: str, name: str, source: Remote, into: str) -> Fetched:
    secret, store = source.credentials_secret_ref, source.s3
    variables = {key: _variable(key, name) for key in (*S3_KEYS, *S3_OPTIONAL_KEYS)} if secret else {}
    entry = Download(
        field=field,
        uri=source.uri or "",
        downloaded=into,
        s3=store,
        is_trusted=is_trusted(store, settings) or None,
        credentials=variables or None,
    )
    secrets = {
        variable: SecretKey(secret.name, key, optional=key in S3_OPTIONAL_KEYS)
        for key, variable in variables.items()
        if secret
    }
    return Fetched(entry, secrets)


def is_trusted(store: S3Store | None, settings: Settings) -> bool:
    """Whether the administrator allows this store whatever its address is: scheme, host and port are listed."""
    place = _place(store.endpoint) if store is not None and store.endpoint is not None else None
    return place is not None and place in map(_place, settings.s3_endpoints)


def _place(url: str) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port of a URL; None if its port is above 65535."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)


def _variable(key: str, name: str) -> str:
    """A variable of its own for each download: two may have credentials of different Secrets."""
    return f"{key}_{words(name, '_').replace('/', '_').upper()}"


def words(name: str, separator: str) -> str:
    """A name in camelCase as words in lower case."""
    return re.sub("[A-Z]", lambda capital: separator + capital.group().lower(), name)
