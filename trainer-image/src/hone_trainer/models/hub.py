"""Downloads models of the Hugging Face Hub to the workspace: each commit once, and each job from its own directory.

A commit's files lie in `<workspace>/models/hub-<digest>`, for all jobs on the workspace. A job reads hard links to
them, so that it sees the same files for as long as it lasts, whatever becomes of that directory or of a branch.
"""

import hashlib
import ipaddress
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from pydantic import ValidationError

from hone.contract.report import ArtifactFile, Manifest
from hone.contract.results import DownloadedModel
from hone.contract.runconfig import Download
from hone_trainer.protocol import limits, manifest
from hone_trainer.protocol.errors import BadInput, full_disk_hint
from hone_trainer.protocol.files import remove_named, remove_stale, sync_tree, write_atomic
from hone_trainer.protocol.units import gib
from hone_trainer.protocol.volumes import read_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

MANIFEST_FILE, MANIFEST_BYTES = "MANIFEST.json", 16 << 20
BYTES_PER_SECOND = 2_000_000
"""How slow a connection may be."""
_SCHEME = "hf://"
_PARTIAL, _LINKING = ".downloading-", ".linking-"
_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_SMALL_BYTES = 64 << 20
_CREDENTIALS = "credentialsSecretRef"

log = logging.getLogger(__name__)


class HubManifest(Manifest):
    """The content of `MANIFEST_FILE` in the directory of a downloaded model: all of its other files."""

    uri: str
    revision: str
    """The commit."""


class PrivateAddress(Exception):
    """A name that is not the administrator's leads to an address that is not public."""


class HubUnreachable(RuntimeError):
    """The Hub did not answer, or answered with an error of its own; another attempt may succeed."""


def ensure_downloaded(download: Download) -> DownloadedModel:
    """Download the model, unless this run or another one on the workspace has done so.

    Its files are compared with the digests that the Hub lists, and with those in the manifest whenever they are used
    again. A connection that is cut resumes; files that were whole when the step was killed are not downloaded again.

    Raises:
        BadInput: there is no such model or revision, the token is refused, the model has no safetensors files, or the
            workspace is too small.
        HubUnreachable: a failure that may pass.
    """
    into = Path(download.downloaded)
    into.parent.mkdir(parents=True, exist_ok=True)
    for prefix in (_PARTIAL, _LINKING):
        remove_stale(into.parent, prefix)
    # Removed, so that no library that reads the model's files can tell it.
    token = os.environ.pop(download.token_variable, None) if download.token_variable else None
    model = _whole(into)
    if model is None:
        with _online(download):
            model = _fetched(download, token, into)
    log.info("Model is on the workspace", extra={"uri": model.uri, "revision": model.revision, "directory": str(into)})
    return DownloadedModel(
        field=download.field,
        uri=model.uri,
        revision=model.revision,
        size_bytes=sum(file.size_bytes for file in model.files),
    )


def _fetched(download: Download, token: str | None, into: Path) -> HubManifest:
    info = _resolve(download, token)
    files = _files_of(download, info.siblings or [])
    name = hashlib.sha256(f"{download.endpoint or ''} {download.uri} {info.sha}".encode()).hexdigest()[:16]
    common = into.parent / f"hub-{name}"
    model = _whole(common)
    if model is None:
        model = _download(download, token, str(info.sha), files, common)
    _link(common, into, model)
    return model


def _whole(directory: Path) -> HubManifest | None:
    """The manifest of a downloaded model, if each of its files is as it was written."""
    if not directory.exists():
        return None
    try:
        written = HubManifest.model_validate_json(read_file(directory, MANIFEST_FILE, "spec.workspace", MANIFEST_BYTES))
    except (OSError, BadInput, ValidationError):
        return None
    problems = manifest.differences(directory, written.files, without=(MANIFEST_FILE,))
    if problems:
        reason = manifest.in_words(problems)
        log.warning("A model is downloaded again", extra={"directory": str(directory), "reason": reason})
    return None if problems else written


@contextmanager
def _online(download: Download) -> Iterator[None]:
    """Let huggingface_hub connect: the other libraries of the step must find everything in the model's directory."""
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    def client() -> httpx2.Client:
        hooks = {"request": [lambda request: _check_address(request.url.host, download.endpoint)]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=httpx2.Timeout(60.0))

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET
    # Xet's own client connects to addresses that the Hub names, unchecked.
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    disable_progress_bars()
    set_client_factory(client)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = before


def _check_address(host: str, endpoint: str | None) -> None:
    """Refuse a host whose address is not public, unless the administrator named it: redirects lead anywhere."""
    if endpoint and host == urlsplit(endpoint).hostname:
        return
    for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise PrivateAddress(f"{host} leads to {address[0]}, which is no public address")


def _resolve(download: Download, token: str | None) -> "ModelInfo":
    """The commit that the revision names now, and its files with sizes and digests."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=download.endpoint, token=token or False, library_name="hone")
    with _failures(download, token):
        return api.model_info(download.uri.removeprefix(_SCHEME), revision=download.revision, files_metadata=True)


def _files_of(download: Download, siblings: Iterable["RepoSibling"]) -> "list[RepoSibling]":
    """The files that a model consists of: no pickles, no copies of its weights in other formats, no subdirectories."""
    files = {file.rfilename: file for file in siblings if "/" not in file.rfilename}
    if _INDEX in files:
        weights = [name for name in files if _SHARD.fullmatch(name)]
    else:
        weights = [name for name in files if name == _WEIGHTS]
    if not weights and _ADAPTER in files:
        remedy = "Name the model that it was trained on."
        raise BadInput(f"{download.field}.uri", "is an adapter without its base model", remedy)
    if not weights:
        raise BadInput(
            f"{download.field}.uri",
            f"has no {_WEIGHTS}: weights are read from safetensors files only",
            "Use a revision or a model with safetensors files. Pickles (.bin, .pt) can run code and are not read.",
        )
    return [files[name] for name in sorted(files) if name in weights or name.endswith(_SUFFIXES)]


def _download(
    download: Download, token: str | None, commit: str, files: "list[RepoSibling]", common: Path
) -> HubManifest:
    from huggingface_hub import snapshot_download

    size = sum(file.size or 0 for file in files)
    # One per run and commit: two runs do not write to the same files, and no file of another commit is left in it.
    partial = common.parent / f"{_PARTIAL}{Path(download.downloaded).name}-{commit[:12]}"
    _require_space(download, common.parent, size, partial)
    limits.allow(size / BYTES_PER_SECOND)
    began = time.monotonic()
    log.info("Downloading", extra={"uri": download.uri, "revision": commit, "bytes": size, "files": len(files)})
    with _failures(download, token):
        snapshot_download(
            download.uri.removeprefix(_SCHEME),
            revision=commit,
            local_dir=partial,
            allow_patterns=[re.sub(r"([*?[])", r"[\1]", file.rfilename) for file in files],
            token=token or False,
            endpoint=download.endpoint,
            library_name="hone",
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    present = manifest.list_files(partial)
    _compare(download, partial, present, files)
    result = HubManifest(uri=download.uri, revision=commit, files=present)
    write_atomic(partial / MANIFEST_FILE, result.to_json().encode())
    sync_tree(partial)
    partial.chmod(0o755)
    if common.exists() and _whole(common) is None:
        remove_named(common, _PARTIAL)
    try:
        partial.rename(common)
    except OSError:  # another job on this workspace was faster
        if _whole(common) is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    log.info("Downloaded", extra={"uri": download.uri, "revision": commit, "bytes": size, "seconds": seconds})
    return result


def _compare(download: Download, directory: Path, present: list[ArtifactFile], files: "list[RepoSibling]") -> None:
    """Compare what was downloaded with what the Hub lists. A file that differs is removed, for the next attempt."""
    there = {file.path: file for file in present}
    for listed in files:
        path = directory / listed.rfilename
        actual = there.get(listed.rfilename)
        if actual is not None and actual.size_bytes == (listed.size if listed.size is not None else actual.size_bytes):
            if listed.lfs is not None:
                if actual.sha256 == listed.lfs.sha256:
                    continue
            elif listed.blob_id is None or _blob_id(path) == listed.blob_id:
                continue
        path.unlink(missing_ok=True)
        raise HubUnreachable(
            f"{download.uri}: {listed.rfilename!a} was downloaded with other content than the Hub lists"
        )


def _blob_id(path: Path) -> str:
    """Git's name for the content of a small file."""
    size = path.stat().st_size
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    if size <= _SMALL_BYTES:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _require_space(download: Download, volume: Path, size: int, partial: Path) -> None:
    done = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file()) if partial.exists() else 0
    needed, free = size - done, shutil.disk_usage(volume).free
    if needed > free:
        raise BadInput(
            "spec.workspace.size",
            f"{download.uri} has {gib(size)}; {gib(needed)} are still to be downloaded, but {gib(free)} are free",
            f"Raise it by {gib(needed - free)} or more.",
        )


def _link(common: Path, into: Path, model: HubManifest) -> None:
    """Make the run's own directory of hard links, or of copies where the volume has none; whole or not at all."""
    directory = Path(tempfile.mkdtemp(prefix=_LINKING, dir=into.parent))
    try:
        for name in (*(file.path for file in model.files), MANIFEST_FILE):
            try:
                os.link(common / name, directory / name, follow_symlinks=False)
            except OSError:
                shutil.copyfile(common / name, directory / name, follow_symlinks=False)
        sync_tree(directory)
        directory.chmod(0o755)
        if into.is_symlink() or into.exists():
            remove_named(into, _LINKING)
        directory.rename(into)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _failures(download: Download, token: str | None) -> Iterator[None]:
    """What the Hub refuses as BadInput of the field to correct; all else as HubUnreachable."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        message = f"{download.uri} has no branch, tag or commit {download.revision!r}"
        raise BadInput(f"{download.field}.revision", message, "Name one that the model's page lists.") from error
    except errors.GatedRepoError as error:
        _refused(download, token, f"{download.uri} is gated, and access was not granted", error)
    except errors.RepositoryNotFoundError as error:
        what = "no such model is visible to this token" if token else "there is no such model, or it is private"
        remedy = f"Correct the name, or set {_CREDENTIALS} to a Secret with a token that may read it."
        raise BadInput(f"{download.field}.uri", f"{download.uri}: {what}", remedy) from error
    except (errors.HFValidationError, errors.DisabledRepoError) as error:
        what = "is disabled" if isinstance(error, errors.DisabledRepoError) else "is no name of a model on the Hub"
        raise BadInput(f"{download.field}.uri", f"{download.uri} {what}", "Name another model.") from error
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
    if token:
        remedy = "Request access on the model's page with the token's account, or put a valid token in the Secret."
    else:
        remedy = f"Request access on the model's page, and set {_CREDENTIALS} to a Secret with key HF_TOKEN."
    raise BadInput(f"{download.field}.{_CREDENTIALS}", message, remedy) from error


def _unreachable(download: Download, error: Exception) -> str:
    cause = type(error.__cause__ or error).__name__
    return (
        f"{download.uri} could not be downloaded: {cause}. Prepare pods may reach public addresses on port 443; others "
        "must be listed in networkPolicies.egress of Hone's chart"
    )
