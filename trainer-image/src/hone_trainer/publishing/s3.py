"""Copies to an S3-compatible store: all files first, SHA256SUMS last. A copy without that object is no copy.

The store checks the SHA-256 of small files as they arrive; large ones are sent in parts, which the next attempt does
not send again, and are compared with their digest while they are read.
"""

import base64
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hone.contract.results import PublishedModel
from hone.contract.runconfig import Publication
from hone.contract.stores import DEFAULT_REGION, S3Store
from hone_trainer.protocol.errors import BadInput
from hone_trainer.publishing import failures
from hone_trainer.publishing.bundle import SUMS_FILE, Bundle, CopiedFile

PART_BYTES = 64 << 20
MAX_PARTS = 10_000
_DIGEST, _JOB = "sha256", "hone-job"
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_UNKNOWN = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthorizationHeaderMalformed")
_FULL = ("QuotaExceeded", "InsufficientStorage", "InsufficientStorageSpace", "XMinioStorageFull", "StorageFull")
_ABSENT = ("NoSuchBucket", "404", "NoSuchKey", "NotFound")

log = logging.getLogger(__name__)


def publish(bundle: Bundle, copy: Publication, credentials: Mapping[str, str]) -> PublishedModel:
    """Copy the files, and SHA256SUMS once all of them are there.

    Raises:
        Refused: the store refuses it, or another job's model is there.
        NotReached: another attempt may succeed.
    """
    with _failures(copy, bool(credentials)):
        store = _Store(copy, credentials)
        present = store.head(SUMS_FILE)
        if present is None or present.get(_DIGEST) != bundle.sums.sha256:
            if present is not None:
                store.make_way(bundle, present)
            for file in bundle.files:
                store.put(file)
            store.put(bundle.sums, {_JOB: bundle.job})
        for file in (*bundle.files, bundle.sums):
            store.check(file)
    return PublishedModel(uri=copy.uri, digest=bundle.digest, size_bytes=bundle.size)


class _Store:
    """The part of a bucket below the prefix."""

    def __init__(self, copy: Publication, credentials: Mapping[str, str]) -> None:
        self._copy = copy
        self._bucket, _, self._prefix = copy.uri.removeprefix("s3://").partition("/")
        self._client = _client(copy, credentials)

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}

    def head(self, path: str) -> dict[str, str] | None:
        """Metadata of an object with its size; None if there is none."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.head_object(**self._at(path))
        except ClientError as error:
            if _code(error) not in _ABSENT:
                raise
            return None
        return {**answer.get("Metadata", {}), "size": str(answer["ContentLength"])}

    def make_way(self, bundle: Bundle, present: Mapping[str, str]) -> None:
        """Withdraw an earlier copy of this job, as one with other scores; refuse to overwrite anything else."""
        if present.get(_JOB) != bundle.job:
            raise failures.taken(self._copy, "has another model")
        self._client.delete_object(**self._at(SUMS_FILE))

    def put(self, file: CopiedFile, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object, unless it is there already."""
        if self._is_there(file):
            return
        more = {"Metadata": {_DIGEST: file.sha256, **(metadata or {})}}
        if file.size > PART_BYTES:
            self._put_in_parts(file, more)
            return
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        with file.open() as content:
            self._client.put_object(
                **self._at(file.path), Body=content, ContentLength=file.size, ChecksumSHA256=digest, **more
            )
        log.info("Copied", extra={"file": file.path, "bytes": file.size})

    def _put_in_parts(self, file: CopiedFile, more: Mapping[str, Any]) -> None:
        upload, sent = self._resume(file)
        if upload is None:
            upload = self._client.create_multipart_upload(**self._at(file.path), **more)["UploadId"]
        size, whole = max(PART_BYTES, -(-file.size // MAX_PARTS)), hashlib.sha256()
        parts: list[dict[str, Any]] = []
        with file.open() as content:
            while block := content.read(size):
                whole.update(block)
                number, tag = len(parts) + 1, f'"{hashlib.md5(block, usedforsecurity=False).hexdigest()}"'
                if sent.get(number) != (len(block), tag):
                    answer = self._client.upload_part(
                        **self._at(file.path), UploadId=upload, PartNumber=number, Body=block
                    )
                    tag = answer["ETag"]
                    log.info("Copying", extra={"file": file.path, "part": number, "ofBytes": file.size})
                parts.append({"PartNumber": number, "ETag": tag})
        if whole.hexdigest() != file.sha256:
            self._client.abort_multipart_upload(**self._at(file.path), UploadId=upload)
            raise failures.differs(self._copy, file.path)
        self._client.complete_multipart_upload(**self._at(file.path), UploadId=upload, MultipartUpload={"Parts": parts})

    def _resume(self, file: CopiedFile) -> tuple[str | None, dict[int, tuple[int, str]]]:
        """An upload of the file that an attempt has begun, with size and tag of each part that has arrived."""
        key = self._at(file.path)["Key"]
        begun = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", [])
        upload = next((each["UploadId"] for each in begun if each["Key"] == key), None)
        if upload is None:
            return None, {}
        pages = self._client.get_paginator("list_parts").paginate(**self._at(file.path), UploadId=upload)
        parts = (part for page in pages for part in page.get("Parts", []))
        return upload, {part["PartNumber"]: (part["Size"], part["ETag"]) for part in parts}

    def _is_there(self, file: CopiedFile) -> bool:
        present = self.head(file.path)
        return present is not None and (present.get(_DIGEST), present["size"]) == (file.sha256, str(file.size))

    def check(self, file: CopiedFile) -> None:
        """Compare an object with the file: its size and the digest it was stored with; of small ones, their content."""
        if not self._is_there(file):
            raise failures.differs(self._copy, file.path)
        if file.content is not None:
            content = self._client.get_object(**self._at(file.path))["Body"].read(file.size + 1)
            if content != file.content:
                raise failures.differs(self._copy, file.path)


def _client(copy: Publication, credentials: Mapping[str, str]) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    store = copy.s3 or S3Store()
    # Without credentials boto3 would look for some, also at the cloud's metadata address.
    signing = {} if credentials else {"signature_version": UNSIGNED}
    return boto3.session.Session(
        aws_access_key_id=credentials.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=credentials.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=credentials.get("AWS_SESSION_TOKEN") or None,
        region_name=store.region or DEFAULT_REGION,
    ).client(
        "s3",
        endpoint_url=store.endpoint,
        config=Config(
            s3={"addressing_style": "path" if store.is_path_style else "auto"},
            retries={"mode": "standard", "max_attempts": 4},
            connect_timeout=20,
            read_timeout=60,
            **signing,
        ),
    )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _failures(copy: Publication, has_credentials: bool) -> Iterator[None]:
    """What the store answers, told apart. Its own words are left out: they may have keys and signed URLs."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except BadInput:
        raise
    except ClientError as error:
        raise _refusal(copy, error, has_credentials) from error
    except (BotoCoreError, Boto3Error, OSError) as error:
        raise failures.NotReached(f"{copy.uri} could not be reached: {type(error).__name__}") from error


def _refusal(copy: Publication, error: Any, has_credentials: bool) -> Exception:
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _EXPIRED:
        return failures.expired(copy)
    if code in _FULL or status == 507:
        return failures.full(copy)
    if code in _UNKNOWN or status == 401 or (status == 403 and not has_credentials):
        return failures.unauthenticated(copy, has_credentials)
    if status == 403:
        return failures.forbidden(copy)
    if code in _ABSENT or status == 404:
        return failures.missing(copy, "there is no such bucket")
    if code in ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"):
        return failures.NotReached(f"{copy.uri}: a file arrived with other content than was sent", "DigestMismatch")
    return failures.NotReached(f"{copy.uri}: the store answered with {code or status}")
