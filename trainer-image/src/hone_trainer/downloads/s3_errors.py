"""What an S3-compatible store refuses, as the field to correct with the remedy; and what may pass by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hone.contract.runconfig import Download
from hone.contract.stores import DEFAULT_REGION, S3_KEYS, S3Store
from hone_trainer.downloads.remote import Unreachable
from hone_trainer.protocol.addresses import private_address
from hone_trainer.protocol.errors import BadInput, full_disk_hint

_CREDENTIALS = "credentialsSecretRef"
_REMEDY = f"Put valid credentials under {' and '.join(S3_KEYS)} into the Secret."
_EXPIRED = "Put new credentials into the Secret; temporary ones also need AWS_SESSION_TOKEN."
REFUSED: dict[str, tuple[str, str]] = {
    "InvalidAccessKeyId": ("the store does not know the access key", _REMEDY),
    "SignatureDoesNotMatch": ("the secret key does not belong to the access key", _REMEDY),
    "ExpiredToken": ("the credentials have expired", _EXPIRED),
    "ExpiredTokenException": ("the credentials have expired", _EXPIRED),
    "InvalidToken": ("the session token is not valid", _EXPIRED),
    "TokenRefreshRequired": ("the credentials have expired", _EXPIRED),
}
"""Codes of S3 for credentials that are wrong, with what to do."""
_MISSING = ("NoSuchKey", "404", "NotFound")
_DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "401", "Unauthorized")
_REGIONS = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")


@contextmanager
def failures(download: Download, store: S3Store, *, has_credentials: bool) -> Iterator[None]:
    """What the user must change as BadInput of the field; all else as Unreachable, without words of the store."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ClientError as error:
        raise _answered(download, store, error.response, has_credentials=has_credentials) from error
    except ParamValidationError as error:
        message = f"{download.uri} is no name of a bucket and a key"
        raise BadInput(f"{download.field}.uri", message, "Write it as s3://bucket/key.") from error
    except RecursionError as error:
        raise _redirected(download) from error
    except (BotoCoreError, OSError) as error:
        if full_disk_hint(error):
            raise
        if isinstance(error.__context__, RecursionError):
            raise _redirected(download) from error
        if private := private_address(error):
            raise _private(download, str(private)) from error
        raise Unreachable(
            f"{download.uri} could not be downloaded: {type(error).__name__}. Prepare pods may reach public addresses "
            "on port 443; others must be listed in s3.endpoints and networkPolicies.egress of Hone's chart"
        ) from error
    except Exception as error:
        if private := private_address(error):
            raise _private(download, str(private)) from error
        raise


def _redirected(download: Download) -> BadInput:
    """botocore follows a redirect to another region of the same store, each time with a request for the region."""
    message = f"{download.uri}: the store answers every request with a redirect, which is not followed"
    return BadInput(f"{download.field}.s3.endpoint", message, "Set it to the address of the store itself.")


def _private(download: Download, problem: str) -> BadInput:
    remedy = "Use a store with a public address, or ask the administrator to list it in s3.endpoints of Hone's chart."
    return BadInput(f"{download.field}.s3.endpoint", problem, remedy)


def _answered(download: Download, store: S3Store, response: dict[str, Any], *, has_credentials: bool) -> Exception:
    """The error for an answer of the store."""
    code = str(response.get("Error", {}).get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status, headers = int(metadata.get("HTTPStatusCode", 0)), metadata.get("HTTPHeaders", {})
    bucket = download.uri.removeprefix("s3://").partition("/")[0]
    if code in REFUSED:
        problem, remedy = REFUSED[code]
        return BadInput(f"{download.field}.{_CREDENTIALS}", f"{download.uri}: {problem}", remedy)
    if code == "NoSuchBucket":
        message = f"the store has no bucket {bucket!r}"
        return BadInput(f"{download.field}.uri", message, "Correct the name, or set s3.endpoint to its store.")
    if code in _MISSING:
        return BadInput(f"{download.field}.uri", f"{download.uri} does not exist", "Correct the key.")
    if code in _REGIONS:
        region = headers.get("x-amz-bucket-region") or "another one"
        message = f"bucket {bucket!r} is not in region {store.region or DEFAULT_REGION} but in {region}"
        return BadInput(f"{download.field}.s3.region", message, "Set s3.region to the region of the bucket.")
    if code in _DENIED or status in (401, 403):
        return _denied(download, has_credentials=has_credentials)
    if code == "PreconditionFailed" or status == 412:
        return Unreachable(f"{download.uri}: an object was replaced while it was downloaded")
    if 400 <= status < 500 and status not in (408, 429) and code not in ("RequestTimeout", "RequestTimeTooSkewed"):
        message = f"{download.uri}: the store refused the request, {code or status}"
        return BadInput(f"{download.field}.uri", message, "Correct uri, s3.endpoint and s3.pathStyle.")
    return Unreachable(f"{download.uri}: the store answered with {code or status}")


def _denied(download: Download, *, has_credentials: bool) -> BadInput:
    field = f"{download.field}.{_CREDENTIALS}"
    if has_credentials:
        message = f"{download.uri}: the credentials may not read it"
        return BadInput(field, message, "Allow them s3:GetObject and s3:ListBucket on it, or use others.")
    message = f"{download.uri} may not be read without credentials"
    return BadInput(field, message, f"Set it to a Secret with {' and '.join(S3_KEYS)}.")
