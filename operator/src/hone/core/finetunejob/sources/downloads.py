"""What prepare downloads: where from, where to, with which variables; the same for models and data."""

import re
from urllib.parse import urlsplit

from hone.api.dataset import RemoteRows
from hone.api.finetunejob import ModelSource
from hone.contract.runconfig import Download
from hone.contract.stores import S3_KEYS, S3_OPTIONAL_KEYS, S3Store
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.source import SecretKey, Source
from hone.core.settings import Settings

TOKEN_KEY = "HF_TOKEN"
"""The key of a Secret that has an access token of the Hugging Face Hub; huggingface_hub's own name for it."""


def from_hub(run: Run, field: str, name: str, source: ModelSource | RemoteRows, into: str) -> tuple[Download, Source]:
    """A model or data set of the Hugging Face Hub, and its source.

    Args:
        run: the run.
        field: path of the field that names it.
        name: what distinguishes its variables from those of other downloads: `model`, `train/0`.
        source: the fields of the spec.
        into: the directory to write it to, which is this run's: a branch may move before the next one.
    """
    secret, variable = source.credentials_secret_ref, _variable(TOKEN_KEY, name)
    entry = Download(
        field=field,
        uri=source.uri or "",
        revision=source.revision,
        downloaded=into,
        endpoint=run.settings.hub_endpoint or None,
        token_variable=variable if secret else None,
    )
    return entry, Source(path=into, secrets={variable: SecretKey(secret.name, TOKEN_KEY)} if secret else {})


def from_s3(run: Run, field: str, name: str, source: ModelSource | RemoteRows, into: str) -> tuple[Download, Source]:
    """Objects of an S3-compatible store, and their source; arguments as of `from_hub`."""
    secret, store = source.credentials_secret_ref, source.s3
    variables = {key: _variable(key, name) for key in (*S3_KEYS, *S3_OPTIONAL_KEYS)} if secret else {}
    entry = Download(
        field=field,
        uri=source.uri or "",
        downloaded=into,
        s3=store,
        is_trusted=is_trusted(store, run.settings) or None,
        credentials=variables or None,
    )
    secrets = {
        variable: SecretKey(secret.name, key, optional=key in S3_OPTIONAL_KEYS)
        for key, variable in variables.items()
        if secret
    }
    return entry, Source(path=into, secrets=secrets)


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
