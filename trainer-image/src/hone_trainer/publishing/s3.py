"""Copies to an S3-compatible store: all files first, SHA256SUMS last. A copy without that object is no copy.

The store checks the SHA-256 of small files as they arrive; large ones are sent in parts, which the next attempt does
not send again, and are compared with their digest while they are read.
"""

import base64
import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hone.contract.report import SUMS_FILE
from hone.contract.results import PublishedModel
from hone.contract.runconfig import Publication
from hone.contract.stores import DEFAULT_REGION, S3Store
from hone_trainer.protocol.errors import BadInput
from hone_trainer.publishing import failures
from hone_trainer.publishing.bundle import Bundle, CopiedFile

PART_BYTES = 64 << 20
MAX_PARTS = 10_000
_DIGEST, _JOB = "sha256", "hone-job"
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_UNKNOWN = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthorizationHeaderMalformed")
_FULL = ("QuotaExceeded", "InsufficientStorage", "InsufficientStorageSpace", "XMinioStorageFull", "StorageFull")
_ABSENT = ("NoSuchBucket", "404", "NoSuchKey", "NotFound")

_Sent = Mapping[int, tuple[int, str]]
"""Size and tag of each part of an upload that has arrived."""

log = logging.getLogger(__name__)


def publish(bundle: Bundle, copy: Publication, credentials: Mapping[str, str]) -> PublishedModel:
    """Copy the files, and SHA256SUMS once all of them are there.

    Raises:
        Refused: the store refuses it, or another job's model is there.
        NotReached: another attempt may succeed.
    """
    with _failures(copy, bool(credentials)):
        store = _Store(copy, bundle.job, credentials)
        if not store.is_whole(bundle):
            store.make_way(bundle)
            for file in bundle.files:
                store.put(file)
            for file in bundle.files:
                store.check(file)
            store.put_sums(bundle.sums)
            store.check(bundle.sums)
    return PublishedModel(uri=copy.uri, digest=bundle.digest, size_bytes=bundle.size)


class _Store:
    """The part of a bucket below the prefix."""

    def __init__(self, copy: Publication, job: str, credentials: Mapping[str, str]) -> None:
        self._copy, self._job = copy, job
        self._bucket, _, self._prefix = copy.uri.removeprefix("s3://").partition("/")
        self._client = _client(copy, credentials)

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}

    def _metadata(self, file: CopiedFile) -> dict[str, str]:
        return {_DIGEST: file.sha256, _JOB: self._job}

    def _head(self, path: str) -> dict[str, str] | None:
        """Metadata of an object with its size; None if there is none."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.head_object(**self._at(path))
        except ClientError as error:
            if _code(error) not in _ABSENT:
                raise
            return None
        return {**answer.get("Metadata", {}), "size": str(answer["ContentLength"])}

    def is_whole(self, bundle: Bundle) -> bool:
        """Whether this very copy is there."""
        return all(map(self._is_there, (bundle.sums, *bundle.files)))

    def make_way(self, bundle: Bundle) -> None:
        """Withdraw an earlier copy of this job, as a damaged one or one with other scores.

        Raises:
            Refused: there is something that this job did not write.
        """
        sums = self._head(SUMS_FILE)
        if sums is not None and sums.get(_JOB) != self._job:
            raise failures.taken(self._copy, "has another model")
        for file in bundle.files:
            present = self._head(file.path)
            if present is None or present.get(_JOB) == self._job:
                continue
            if sums is None:
                raise failures.taken(self._copy, f"has a file {file.path!a} that this job did not write")
            # It damages our copy. SHA256SUMS goes last: without it, the next attempt would refuse this file.
            self._client.delete_object(**self._at(file.path))
        if sums is not None:
            self._client.delete_object(**self._at(SUMS_FILE))

    def put(self, file: CopiedFile, **conditions: str) -> None:
        """Write an object, unless it is there already."""
        if self._is_there(file):
            return
        if file.size > PART_BYTES:
            self._put_in_parts(file)
            return
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        with file.open() as content:
            self._client.put_object(
                **self._at(file.path),
                Body=content,
                ContentLength=file.size,
                ChecksumSHA256=digest,
                Metadata=self._metadata(file),
                **conditions,
            )
        log.info("Copied", extra={"file": file.path, "bytes": file.size})

    def put_sums(self, sums: CopiedFile) -> None:
        """Write SHA256SUMS, unless another job's has come meanwhile, where the store can tell."""
        from botocore.exceptions import ClientError

        try:
            self.put(sums, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) == "NotImplemented" or _status(error) == 501:
                self.put(sums)
            # It may be ours: the answer to a request that is sent twice.
            elif _status(error) != 412 or not self._is_there(sums):
                raise

    def _put_in_parts(self, file: CopiedFile) -> None:
        if upload := self._resume(file):
            self._send(file, *upload)
            if self._is_there(file):
                return
            # Another job has begun it, with its own metadata: what it had sent is the same in both files.
            self._client.delete_object(**self._at(file.path))
        begun = self._client.create_multipart_upload(**self._at(file.path), Metadata=self._metadata(file))
        self._send(file, begun["UploadId"], {})

    def _send(self, file: CopiedFile, upload: str, sent: _Sent) -> None:
        """Send the parts that have not arrived, and make an object of all."""
        whole, parts = hashlib.sha256(), []
        for number, block, tag in _parts(file):
            whole.update(block)
            if sent.get(number) != (len(block), tag):
                answer = self._client.upload_part(**self._at(file.path), UploadId=upload, PartNumber=number, Body=block)
                tag = answer["ETag"]
                log.info("Copying", extra={"file": file.path, "part": number, "ofBytes": file.size})
            parts.append({"PartNumber": number, "ETag": tag})
        if whole.hexdigest() != file.sha256:
            self._client.abort_multipart_upload(**self._at(file.path), UploadId=upload)
            raise failures.differs(self._copy, file.path)
        self._client.complete_multipart_upload(**self._at(file.path), UploadId=upload, MultipartUpload={"Parts": parts})

    def _resume(self, file: CopiedFile) -> tuple[str, _Sent] | None:
        """An upload of the file that an attempt has begun, and its parts; those of other content are ended."""
        key = self._at(file.path)["Key"]
        begun = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", [])
        chosen = None
        for upload in (each["UploadId"] for each in begun if each["Key"] == key):
            pages = self._client.get_paginator("list_parts").paginate(**self._at(file.path), UploadId=upload)
            parts = (part for page in pages for part in page.get("Parts", []))
            sent = {part["PartNumber"]: (part["Size"], part["ETag"]) for part in parts}
            if chosen is None and _is_of(file, sent):
                chosen = upload, sent
            else:
                self._client.abort_multipart_upload(**self._at(file.path), UploadId=upload)
        return chosen

    def _is_there(self, file: CopiedFile) -> bool:
        """Whether the object has this job's name, the digest and size; of a file that Hone adds, also its content."""
        present = self._head(file.path)
        if present is None or not {**self._metadata(file), "size": str(file.size)}.items() <= present.items():
            return False
        if file.content is None:
            return True
        content = self._client.get_object(**self._at(file.path))["Body"].read(file.size + 1)
        return bool(content == file.content)

    def check(self, file: CopiedFile) -> None:
        """Compare an object with the file."""
        if not self._is_there(file):
            raise failures.differs(self._copy, file.path)


def _parts(file: CopiedFile) -> Iterator[tuple[int, bytes, str]]:
    """Number, content and tag of each part."""
    size = max(PART_BYTES, -(-file.size // MAX_PARTS))
    with file.open() as content:
        for number in itertools.count(1):
            if not (block := content.read(size)):
                return
            yield number, block, f'"{hashlib.md5(block, usedforsecurity=False).hexdigest()}"'


def _is_of(file: CopiedFile, sent: _Sent) -> bool:
    """Whether the parts that have arrived, the first of them at least, are the file's."""
    ours = ((number, (len(block), tag)) for number, block, tag in itertools.islice(_parts(file), max(sent, default=0)))
    return 1 in sent and all(sent.get(number, part) == part for number, part in ours)


def _client(copy: Publication, credentials: Mapping[str, str]) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    store = copy.s3 or S3Store()
    # Without credentials boto3 would look for some, also at the cloud's metadata address.
    signing = {} if credentials else {"signature_version": UNSIGNED}
    # By itself, boto3 keeps buckets in the path at every endpoint but Amazon's.
    style = "path" if store.is_path_style else "virtual" if store.endpoint else "auto"
    return boto3.session.Session(
        aws_access_key_id=credentials.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=credentials.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=credentials.get("AWS_SESSION_TOKEN") or None,
        region_name=store.region or DEFAULT_REGION,
    ).client(
        "s3",
        endpoint_url=store.endpoint,
        config=Config(
            s3={"addressing_style": style},
            retries={"mode": "standard", "max_attempts": 4},
            connect_timeout=20,
            read_timeout=60,
            **signing,
        ),
    )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


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
    code, status = _code(error), _status(error)
    if code in _EXPIRED:
        return failures.expired(copy)
    if code in _FULL or status == 507:
        return failures.full(copy)
    if code in _UNKNOWN or status == 401 or (status == 403 and not has_credentials):
        return failures.unauthenticated(copy, has_credentials)
    if status == 403:
        return failures.forbidden(copy)
    if status == 412:
        return failures.taken(copy, "has another model")
    if code in _ABSENT or (status == 404 and code != "NoSuchUpload"):
        return failures.missing(copy, "there is no such bucket")
    if code in ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"):
        return failures.NotReached(f"{copy.uri}: a file arrived with other content than was sent", "DigestMismatch")
    return failures.NotReached(f"{copy.uri}: the store answered with {code or status}")
