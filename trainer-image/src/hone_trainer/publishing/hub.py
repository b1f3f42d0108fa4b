"""Copies to the Hugging Face Hub: one commit, which the Hub makes once all of its files have arrived.

Large files that arrived before an attempt was killed are not sent again. The repository is created, as a private one,
if there is none.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.report import SUMS_FILE
from hone.contract.results import PublishedModel
from hone.contract.runconfig import Publication
from hone_trainer.protocol import secrets
from hone_trainer.protocol.errors import BadInput
from hone_trainer.publishing import failures
from hone_trainer.publishing.bundle import Bundle, CopiedFile
from hone_trainer.publishing.client import client

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_BRANCH = "main"

log = logging.getLogger(__name__)


def publish(bundle: Bundle, copy: Publication, credentials: Mapping[str, str]) -> PublishedModel:
    """Commit the files, unless the branch has them already.

    Raises:
        Refused: the Hub refuses it, or another model is there.
        NotReached: another attempt may succeed.
    """
    from huggingface_hub import HfApi

    token = credentials.get("HF_TOKEN")
    repository = copy.uri.removeprefix("hf://")
    with _failures(copy, token), _online():
        api = HfApi(endpoint=copy.endpoint, token=token or False, library_name="hone")
        api.create_repo(repository, private=True, exist_ok=True)
        before = api.model_info(repository, revision=_BRANCH, files_metadata=True)
        commit = before.sha or ""
        if not _has(before, bundle):
            commit = _commit(api, repository, bundle, _outdated(api, copy, repository, before, bundle), commit)
        after = api.model_info(repository, revision=commit, files_metadata=True)
        if wrong := _differing(after, bundle):
            raise failures.differs(copy, wrong)
    return PublishedModel(uri=copy.uri, digest=bundle.digest, revision=commit, size_bytes=bundle.size)


def _commit(api: "HfApi", repository: str, bundle: Bundle, outdated: list[str], parent: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with ExitStack() as opened:
        additions = [
            CommitOperationAdd(
                path_in_repo=file.path,
                path_or_fileobj=file.content if file.content is not None else opened.enter_context(file.open()),
            )
            for file in (*bundle.files, bundle.sums)
        ]
        log.info("Committing", extra={"repository": repository, "files": len(additions), "bytes": bundle.size})
        deletions = [CommitOperationDelete(path_in_repo=path) for path in outdated]
        answer = api.create_commit(
            repository,
            [*additions, *deletions],
            commit_message=f"Publish {bundle.digest}",
            revision=_BRANCH,
            parent_commit=parent or None,
        )
    return str(answer.oid)


def _outdated(api: "HfApi", copy: Publication, repository: str, present: "ModelInfo", bundle: Bundle) -> list[str]:
    """Files of an earlier copy that this one does not have.

    Raises:
        Refused: there are weights that no copy has brought.
    """
    names = {file.rfilename for file in present.siblings or []}
    ours = {file.path for file in bundle.files}
    if SUMS_FILE in names:
        with tempfile.TemporaryDirectory() as directory:
            listed = Path(api.hf_hub_download(repository, SUMS_FILE, revision=present.sha, local_dir=directory))
            lines = listed.read_text().splitlines()
        return sorted(names & {line.partition("  ")[2] for line in lines} - ours)
    if any(name.endswith(".safetensors") for name in names):
        raise failures.taken(copy, "has a model that Hone did not publish")
    return []


def _has(present: "ModelInfo", bundle: Bundle) -> bool:
    return _differing(present, bundle) is None


def _differing(present: "ModelInfo", bundle: Bundle) -> str | None:
    """The first file that the Hub does not list with this size and digest."""
    listed = {file.rfilename: file for file in present.siblings or []}
    for file in (*bundle.files, bundle.sums):
        there = listed.get(file.path)
        if there is None or there.size != file.size:
            return file.path
        if there.lfs is not None:
            if there.lfs.sha256 != file.sha256:
                return file.path
        elif there.blob_id != _blob_id(file):
            return file.path
    return None


def _blob_id(file: CopiedFile) -> str:
    """Git's name for the file's content."""
    digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with file.open() as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _online() -> Iterator[None]:
    """Let huggingface_hub connect, with time limits and without logging URLs, which are signed."""
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import logging as library_logging
    from huggingface_hub.utils._http import default_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET
    # Xet's own client connects to addresses that the Hub names, unchecked.
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    verbosity = library_logging.get_verbosity()
    library_logging.set_verbosity(logging.ERROR)
    disable_progress_bars()
    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
        library_logging.set_verbosity(verbosity)
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = before


@contextmanager
def _failures(copy: Publication, token: str | None) -> Iterator[None]:
    """What the Hub answers, told apart. Its words are left out: URLs of files are signed."""
    import httpx2
    from huggingface_hub import errors

    has_token = token is not None
    try:
        yield
    except BadInput:
        raise
    except errors.HFValidationError as error:
        raise failures.missing(copy, "is no name of a repository") from error
    except errors.HfHubHTTPError as error:
        raise _refusal(copy, error, has_token) from error
    except RuntimeError as error:
        # So the library wraps what a large file met.
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refusal(copy, cause, has_token) from error
        if isinstance(cause, httpx2.HTTPError | OSError):
            raise failures.NotReached(f"{copy.uri} could not be reached: {type(cause).__name__}") from error
        raise
    except ValueError as error:
        # The Hub does not accept the card, or a file.
        words = secrets.without(str(error), secrets.withheld)[:200]
        message = f"{copy.uri}: the Hub does not accept a file: {words}"
        raise failures.Refused("FileRefused", failures.URI, message, "See the message.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise failures.NotReached(f"{copy.uri} could not be reached: {type(error).__name__}") from error


def _refusal(copy: Publication, error: Any, has_token: bool) -> Exception:
    from huggingface_hub import errors

    status = error.response.status_code
    words = f"{error.response.headers.get('X-Error-Message', '')} {error.server_message or ''}".lower()
    if "expired" in words and status in (401, 403):
        return failures.expired(copy)
    if status in (402, 413, 507) or (status == 403 and "storage" in words and "limit" in words):
        return failures.full(copy)
    # The Hub answers with 401 also where there is no such repository.
    if status == 401 and not (has_token and isinstance(error, errors.RepositoryNotFoundError)):
        return failures.unauthenticated(copy, has_token)
    if status == 403:
        return failures.forbidden(copy) if has_token else failures.unauthenticated(copy, has_token)
    if status in (401, 404):
        return failures.missing(copy, "there is no such organization or repository that this token may see")
    return failures.NotReached(f"{copy.uri}: the Hub answered with status {status}")
