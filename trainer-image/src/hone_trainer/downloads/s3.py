"""Objects of an S3-compatible store, by botocore: one, those of a prefix, or those that a glob matches.

Each object is requested with the ETag that was listed, so that one which changes meanwhile is never half of both.
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hone.contract.runconfig import ROWS, Download
from hone.contract.stores import DEFAULT_REGION, S3_KEYS, S3_OPTIONAL_KEYS, S3Store
from hone_trainer.downloads.datasets import matches
from hone_trainer.downloads.models import model_files
from hone_trainer.downloads.remote import MAX_FILES, Listing, RemoteFile, Unreachable, safe_path
from hone_trainer.downloads.s3_errors import failures
from hone_trainer.protocol.addresses import hosts_of_store, public_only
from hone_trainer.protocol.errors import BadInput

_MAX_PAGES = 200
"""Pages of 1000 names that are read of a listing."""
_ATTEMPTS = 5
_WORKERS = 4
_BLOCK = 1 << 20
_PART = ".part"
_WILDCARDS = re.compile(r"[*?\[]")
_MD5 = re.compile(r"[0-9a-f]{32}")
_DICT = "dataset_dict.json"


@contextmanager
def s3(download: Download, secrets: Mapping[str, str]) -> Iterator["S3"]:
    """Objects of a store, which must have a public address unless the administrator allows it."""
    store = download.s3 or S3Store()
    url = urlsplit(store.endpoint or "")
    if url.scheme == "http" and not download.is_trusted:
        raise BadInput(
            f"{download.field}.s3.endpoint",
            f"{store.endpoint} is not HTTPS, so anybody on the way could change the data",
            "Use https://, or ask the administrator to list it in s3.endpoints of Hone's chart.",
        )
    trusted = hosts_of_store(store.endpoint, download.uri) if download.is_trusted else []
    with public_only(trusted), _without_settings():
        yield S3(download, store, client(store, secrets), has_credentials=bool(secrets))


def client(store: S3Store, secrets: Mapping[str, str]) -> Any:
    """A client of the store with these credentials, or without any. No other place is asked for credentials."""
    from botocore import UNSIGNED
    from botocore.config import Config

    signing = {} if secrets else {"signature_version": UNSIGNED}
    config = Config(
        **signing,
        s3={"addressing_style": "path" if store.is_path_style else "virtual"},
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=20,
        read_timeout=60,
        ignore_configured_endpoint_urls=True,
        max_pool_connections=_WORKERS,
    )
    keys = {key.lower(): secrets.get(key) for key in (*S3_KEYS, *S3_OPTIONAL_KEYS)}
    region = store.region or DEFAULT_REGION
    return _session().create_client("s3", region, endpoint_url=store.endpoint, config=config, **keys)


@functools.cache
def _session() -> Any:
    """A session reads the description of S3's requests once, which takes longer than many of these."""
    import botocore.session

    return botocore.session.get_session()


@contextmanager
def _without_settings() -> Iterator[None]:
    """Hide the settings of AWS's libraries, which a job's variables and files could change: the spec's fields decide.

    Left is AWS_CA_BUNDLE, which such a library needs for a store with a certificate authority of its own.
    """
    hidden = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"
    }
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ.update({**nowhere, "AWS_EC2_METADATA_DISABLED": "true"})
    try:
        yield
    finally:
        for name in (*nowhere, "AWS_EC2_METADATA_DISABLED"):
            os.environ.pop(name, None)
        os.environ.update(hidden)


@dataclass(frozen=True)
class _Object:
    key: str
    size: int
    etag: str


class S3:
    """Objects of a store.

    Args:
        download: what the spec names.
        store: where it is.
        s3_client: botocore's client of it.
        has_credentials: whether requests are signed.
    """

    kind = "s3"

    def __init__(self, download: Download, store: S3Store, s3_client: Any, *, has_credentials: bool) -> None:
        self._download, self._store, self._client = download, store, s3_client
        self._has_credentials = has_credentials
        self._bucket, _, self._key = download.uri.removeprefix("s3://").partition("/")
        self.identity = f"{store.endpoint or ''} {store.region or ''} {download.uri}"

    def files(self) -> Listing:
        """The objects that the uri names now. Their names, sizes and ETags are the revision."""
        files = self._rows() if self._download.is_data else self._model()
        lines = "".join(f"{file.key}\0{file.size}\0{file.etag}\n" for file in files)
        return Listing(hashlib.sha256(lines.encode()).hexdigest(), tuple(files))

    def _model(self) -> list[RemoteFile]:
        prefix = f"{self._key.rstrip('/')}/" if self._key.rstrip("/") else ""
        published = self._download.sums is not None
        objects = {each.key.removeprefix(prefix): each for each in self._objects(prefix, below=published)}
        if not objects:
            self._nothing()
        names = list(objects) if published else model_files(self._download, list(objects))
        return [self._remote(objects[name], safe_path(self._download, name)) for name in names]

    def _rows(self) -> list[RemoteFile]:
        key = self._key
        if wildcard := _WILDCARDS.search(key):
            prefix = key[: wildcard.start()].rpartition("/")[0]
            prefix = f"{prefix}/" if prefix else ""
            present = {each.key: each for each in self._objects(prefix, below=True)}
            objects = [present[name] for name in matches(key, present)]
        elif key and not key.endswith("/") and (single := self._single()):
            prefix, objects = key[: len(key) - len(key.rpartition("/")[2])], [single]
        else:
            prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
            objects = list(self._objects(prefix, below=False))
            if any(each.key == prefix + _DICT for each in objects):
                split = self._download.field.removeprefix("spec.dataset.").partition(".")[0]
                objects += self._objects(f"{prefix}{split}/", below=False)
        objects = [each for each in objects if not _is_hidden(each.key.removeprefix(prefix))]
        if not objects:
            self._nothing()
        return [
            self._remote(each, f"{ROWS}/{safe_path(self._download, each.key.removeprefix(prefix))}") for each in objects
        ]

    def _nothing(self) -> None:
        raise BadInput(
            f"{self._download.field}.uri",
            f"{self._download.uri} matches no object",
            "Correct the key. A key that ends with / stands for the objects directly below it; a glob such as "
            "data/**/*.jsonl also for those deeper below.",
        )

    def _remote(self, each: _Object, path: str) -> RemoteFile:
        # That of an object in one part is its MD5, unless the store encrypts it with a key of a user's.
        etag = each.etag.strip('"')
        return RemoteFile(path, each.key, each.size, md5=etag if _MD5.fullmatch(etag) else None, etag=each.etag)

    def _single(self) -> _Object | None:
        """The object whose key is that of the uri, if there is one."""
        from botocore.exceptions import ClientError

        with self._failures():
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._key)
            except ClientError as error:
                # An answer to HEAD has no words. That to a listing says what is wrong.
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403, 404):
                    return next((each for each in self._objects(self._key, below=True) if each.key == self._key), None)
                raise
        return _Object(self._key, int(head["ContentLength"]), str(head["ETag"]))

    def _objects(self, prefix: str, *, below: bool) -> Iterator[_Object]:
        """The objects whose keys begin so; with or without those below a further slash."""
        arguments = {"Bucket": self._bucket, "Prefix": prefix, **({} if below else {"Delimiter": "/"})}
        count = 0
        with self._failures():
            pages = self._client.get_paginator("list_objects_v2").paginate(**arguments)
            for number, page in enumerate(pages):
                for entry in page.get("Contents", []):
                    count += 1
                    if not str(entry["Key"]).endswith("/"):
                        yield _Object(str(entry["Key"]), int(entry["Size"]), str(entry["ETag"]))
                if number >= _MAX_PAGES or (not below and count > MAX_FILES):
                    message = f"{self._download.uri} has more than {count} objects"
                    raise BadInput(f"{self._download.field}.uri", message, "Name a longer prefix.")

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Write the objects below a directory, several at a time."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            for _ in pool.map(lambda file: self._fetch(file, directory / file.path), listing.files):
                pass

    def _fetch(self, file: RemoteFile, path: Path) -> None:
        if path.exists() and path.stat().st_size == file.size:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # A part of another version of the object, or of another one with the same content, has another name.
        name = hashlib.sha256(f"{file.key}\0{file.etag}".encode()).hexdigest()[:12]
        part = path.with_name(f".{name}{_PART}")
        size = file.size or 0
        part.touch()
        for attempt in range(_ATTEMPTS):
            before = part.stat().st_size
            if before >= size:
                break
            self._receive(file, part, before, size)
            if part.stat().st_size == before and attempt:
                break
        if part.stat().st_size != size:
            raise Unreachable(f"{self._download.uri}: {file.key!a} was cut again and again")
        part.rename(path)

    def _receive(self, file: RemoteFile, part: Path, done: int, size: int) -> None:
        """Append to what is there, until the object ends or the connection does. No more is read than was listed."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        with self._failures():
            answer = self._client.get_object(
                Bucket=self._bucket, Key=file.key, IfMatch=file.etag, **({"Range": f"bytes={done}-"} if done else {})
            )
            if done and not str(answer.get("ContentRange", "")).startswith(f"bytes {done}-"):
                done = 0  # a store or proxy that sends all of it
            try:
                with part.open("r+b") as output:
                    output.truncate(done)
                    output.seek(done)
                    while (left := size - output.tell()) > 0 and (block := answer["Body"].read(min(_BLOCK, left))):
                        output.write(block)
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPClientError, ConnectionError):
                return
            finally:
                answer["Body"].close()

    def _failures(self) -> Any:
        return failures(self._download, self._store, has_credentials=self._has_credentials)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
