"""An artifact that a job published: its SHA256SUMS, which was written last, names its files and their digests."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hone.contract.report import SUMS_FILE
from hone.contract.runconfig import Download
from hone_trainer.downloads.remote import Listing, Origin, RemoteFile, path_below, shown
from hone_trainer.protocol.errors import ArtifactChanged, BadInput
from hone_trainer.protocol.volumes import read_file

SUMS_BYTES = 8 << 20
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")
_REMEDY = "Name what status.output.published.uri of the job names, once the job is Published."


def published_files(download: Download, origin: Origin, listing: Listing, volume: Path) -> Listing:
    """The files of a published artifact that an origin has, with the digests in its SHA256SUMS.

    Args:
        download: what the spec names; its `sums` is the digest of SHA256SUMS, empty if any is right.
        origin: where it is.
        listing: all files that the origin has.
        volume: where SHA256SUMS may be written to for a moment.

    Raises:
        BadInput: there is no SHA256SUMS, or it names a file that the origin does not have.
        ArtifactChanged: it has another digest, or a file does not have the digest in it.
    """
    field, present = f"{download.field}.uri", {file.path: file for file in listing.files}
    if SUMS_FILE not in present:
        message = f"{shown(download)} has no {SUMS_FILE}, so it is no artifact that a job published, or not a whole one"
        raise BadInput(field, message, _REMEDY)
    content = _fetched(download, origin, listing, present[SUMS_FILE], volume)
    sums = parsed(content, field)
    check_sums(field, content, download.sums or "")
    files = [replace(present[SUMS_FILE], sha256=hashlib.sha256(content).hexdigest())]
    for name, sha256 in sums.items():
        file = present.get(name)
        if file is None:
            raise BadInput(field, f"{SUMS_FILE} names {name!a}, which is not there", "Publish the artifact again.")
        if file.sha256 not in (None, sha256):
            raise changed(download, name)
        files.append(replace(file, sha256=sha256))
    return Listing(listing.revision, tuple(files))


def check_sums(field: str, content: bytes, digest: str) -> None:
    """Compare SHA256SUMS with the digest that the spec or the first inspection names; an empty one is not compared.

    Raises:
        ArtifactChanged: it has another digest.
    """
    actual = digest_of(content)
    if digest and actual != digest:
        raise ArtifactChanged(
            field,
            f"its {SUMS_FILE} has the digest {actual} instead of {digest}: another artifact was published there",
            "To serve that one, set spec.model.digest to its digest.",
        )


def changed(download: Download, name: str) -> ArtifactChanged:
    """The error for a file of an artifact that does not have the digest in SHA256SUMS."""
    remedy = "Find out what else writes there, and publish the artifact again."
    return ArtifactChanged(f"{download.field}.uri", f"{name!a} has other content than {SUMS_FILE} says", remedy)


def digest_of(content: bytes) -> str:
    """The digest of an artifact, by its SHA256SUMS."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def parsed(content: bytes, field: str) -> Mapping[str, str]:
    """The digests in SHA256SUMS, by path.

    Args:
        content: of SHA256SUMS.
        field: path of the field of the spec that leads to it, for errors.

    Raises:
        BadInput: it has a line that is none of `sha256sum`, or a name that leads out of its directory.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums:
            message = f"line {number} of {SUMS_FILE} is no digest with the name of a file, or names one again"
            raise BadInput(field, message, _REMEDY)
        sums[path_below(field, match[2])] = match[1]
    return sums


def _fetched(download: Download, origin: Origin, listing: Listing, file: RemoteFile, volume: Path) -> bytes:
    if (file.size or 0) > SUMS_BYTES:
        raise BadInput(f"{download.field}.uri", f"{SUMS_FILE} has {file.size} bytes, more than {SUMS_BYTES}", _REMEDY)
    directory = Path(tempfile.mkdtemp(dir=volume))
    try:
        origin.fetch(Listing(listing.revision, (file,)), directory)
        return read_file(directory, SUMS_FILE, f"{download.field}.uri", SUMS_BYTES)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
