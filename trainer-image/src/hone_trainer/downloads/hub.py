"""Models and data sets of the Hugging Face Hub, by huggingface_hub: a commit, with sizes and digests of its files."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from hone.contract.runconfig import ROWS, Download
from hone_trainer.downloads.datasets import rows_of
from hone_trainer.downloads.models import model_files
from hone_trainer.downloads.remote import Listing, RemoteFile, Unreachable, safe_path
from hone_trainer.protocol.addresses import PrivateAddress, public_only
from hone_trainer.protocol.errors import BadInput, full_disk_hint

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

_MODELS, _DATASETS = "hf://", "hf://datasets/"
_CREDENTIALS = "credentialsSecretRef"


class HubUnreachable(Unreachable):
    """The Hub did not answer, or answered with an error of its own; another attempt may succeed."""


@contextmanager
def hub(download: Download, token: str | None) -> Iterator["Hub"]:
    """A model or data set of the Hub. Other libraries stay offline: they must find everything on the workspace."""
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET
    # Xet's own client connects to addresses that the Hub names, unchecked.
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    disable_progress_bars()
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=httpx2.Timeout(60.0)))
    host = urlsplit(download.endpoint or "").hostname
    try:
        with public_only([host] if host else []):
            yield Hub(download, token)
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = before


class Hub:
    """A model or data set of the Hub.

    Args:
        download: what the spec names.
        token: an access token; None: there is none.
    """

    kind = "hub"

    def __init__(self, download: Download, token: str | None) -> None:
        self._download, self._token = download, token
        self._repository = download.uri.removeprefix(_DATASETS if download.is_data else _MODELS)
        choice = f" {download.config} {download.split} {download.field}" if download.is_data else ""
        self.identity = f"{download.endpoint or ''} {download.uri}{choice}"

    def files(self) -> Listing:
        """The files of the commit that the revision names now."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._download.endpoint, token=self._token or False, library_name="hone")
        with _failures(self._download, self._token):
            info = self._info(api)
        files = {file.rfilename: file for file in info.siblings or []}
        if self._download.is_data:
            chosen = rows_of(self._download, list(files), _configs(info))
        elif self._download.sums is not None:
            chosen = [name for name in files if not name.startswith(".")]
        else:
            chosen = model_files(self._download, list(files))
        return Listing(str(info.sha), tuple(self._remote(files[name]) for name in chosen))

    def _info(self, api: "HfApi") -> "ModelInfo | DatasetInfo":
        if self._download.is_data:
            return api.dataset_info(self._repository, revision=self._download.revision, files_metadata=True)
        return api.model_info(self._repository, revision=self._download.revision, files_metadata=True)

    def _remote(self, file: "RepoSibling") -> RemoteFile:
        name = safe_path(self._download, file.rfilename)
        path = f"{ROWS}/{name}" if self._download.is_data else name
        sha256 = file.lfs.sha256 if file.lfs is not None else None
        return RemoteFile(path, name, file.size, sha256=sha256, blob=file.blob_id)

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Write the files of a commit below a directory."""
        from huggingface_hub import snapshot_download

        into = directory / ROWS if self._download.is_data else directory
        with _failures(self._download, self._token):
            snapshot_download(
                self._repository,
                repo_type="dataset" if self._download.is_data else "model",
                revision=listing.revision,
                local_dir=into,
                allow_patterns=[re.sub(r"([*?[])", r"[\1]", file.key) for file in listing.files],
                token=self._token or False,
                endpoint=self._download.endpoint,
                library_name="hone",
            )
        shutil.rmtree(into / ".cache", ignore_errors=True)


def _configs(info: Any) -> Any:
    """What the README's metadata says of the data set's configurations; None: nothing."""
    card = getattr(info, "card_data", None)
    return card.to_dict().get("configs") if card is not None else None


@contextmanager
def _failures(download: Download, token: str | None) -> Iterator[None]:
    """What the Hub refuses as BadInput of the field to correct; all else as HubUnreachable."""
    import httpx2
    from huggingface_hub import errors

    what = "data set" if download.is_data else "model"
    try:
        yield
    except errors.RevisionNotFoundError as error:
        message = f"{download.uri} has no branch, tag or commit {download.revision!r}"
        raise BadInput(f"{download.field}.revision", message, f"Name one that the {what}'s page lists.") from error
    except errors.GatedRepoError as error:
        _refused(download, token, f"{download.uri} is gated, and access was not granted", error)
    except errors.RepositoryNotFoundError as error:
        problem = f"no such {what} is visible to this token" if token else f"there is no such {what}, or it is private"
        remedy = f"Correct the name, or set {_CREDENTIALS} to a Secret with a token that may read it."
        raise BadInput(f"{download.field}.uri", f"{download.uri}: {problem}", remedy) from error
    except (errors.HFValidationError, errors.DisabledRepoError) as error:
        problem = "is disabled" if isinstance(error, errors.DisabledRepoError) else f"is no name of a {what} on the Hub"
        raise BadInput(f"{download.field}.uri", f"{download.uri} {problem}", f"Name another {what}.") from error
    except PrivateAddress as error:
        remedy = "Remove HF_ENDPOINT, or ask the administrator to set huggingFace.endpoint in Hone's chart."
        raise BadInput(f"{download.field}.uri", f"{download.uri}: {error}", remedy) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            _refused(download, token, f"{download.uri}: the Hub refused the token", error)
        # Without its words: URLs of files are signed.
        raise HubUnreachable(f"{download.uri}: the Hub answered with status {error.response.status_code}") from error
    except (httpx2.HTTPError, errors.LocalEntryNotFoundError, errors.FileMetadataError, OSError) as error:
        if full_disk_hint(error):
            raise
        raise HubUnreachable(_unreachable(download, error)) from error


def _refused(download: Download, token: str | None, message: str, error: Exception) -> NoReturn:
    page = "data set" if download.is_data else "model"
    if token:
        remedy = f"Request access on the {page}'s page with the token's account, or put a valid token in the Secret."
    else:
        remedy = f"Request access on the {page}'s page, and set {_CREDENTIALS} to a Secret with key HF_TOKEN."
    raise BadInput(f"{download.field}.{_CREDENTIALS}", message, remedy) from error


def _unreachable(download: Download, error: Exception) -> str:
    cause = type(error.__cause__ or error).__name__
    return (
        f"{download.uri} could not be downloaded: {cause}. Prepare pods may reach public addresses on port 443; others "
        "must be listed in networkPolicies.egress of Hone's chart"
    )
