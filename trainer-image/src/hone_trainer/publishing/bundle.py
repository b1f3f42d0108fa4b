"""What is copied: the artifact's files, the model card with the scores, the provenance, and SHA256SUMS of all these.

The report stays on the claim: it has rows of the test data.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from hone.contract.report import ARTIFACT_DIR, REPORT_FILE, SUMS_FILE, ArtifactFile, Report
from hone.contract.runconfig import Publication, RunConfig
from hone_trainer.artifact import provenance
from hone_trainer.artifact.card import CARD_FILE
from hone_trainer.artifact.difference import MAX_REPORT_BYTES, difference
from hone_trainer.protocol import manifest
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import open_file, read_file
from hone_trainer.publishing.failures import Refused

_SMALL_BYTES = 4 << 20
_FIELD = "spec.output"


@dataclass(frozen=True)
class CopiedFile:
    """A file to copy.

    Attributes:
        path: its path in the copy.
        sha256: digest of its content, in hex.
        size: its size in bytes.
        content: its content, unless it is read from `directory`.
        directory: the artifact's directory.
    """

    path: str
    sha256: str
    size: int
    content: bytes | None = None
    directory: Path | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file for reading."""
        if self.directory is None:
            yield io.BytesIO(self.content or b"")
            return
        with open_file(self.directory, self.path, _FIELD, self.directory.parent) as file:
            yield file


@dataclass(frozen=True)
class Bundle:
    """All files of a copy.

    Attributes:
        job: uid of the job.
        files: the files without SHA256SUMS, by path.
        sums: SHA256SUMS.
    """

    job: str
    files: tuple[CopiedFile, ...]
    sums: CopiedFile

    @property
    def digest(self) -> str:
        """The digest of the whole."""
        return f"sha256:{self.sums.sha256}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files) + self.sums.size


def bundle(config: RunConfig, copy: Publication) -> Bundle:
    """The files to copy, each of which was compared with the digest in the job's status.

    Raises:
        Refused: the artifact is no longer what finish wrote.
    """
    output = Path(config.paths.output)
    directory = output / ARTIFACT_DIR
    if problem := difference(directory, copy.digest):
        raise Refused(
            "ArtifactChanged",
            _FIELD,
            f"the artifact on the job's claim was changed after it was written: {problem}",
            "Find out what else writes to the claim, then delete this job and apply it again.",
        )
    files = [_of_artifact(file, directory) for file in manifest.list_files(directory)]
    if card := _optional(output, CARD_FILE):
        files = [*(file for file in files if file.path != CARD_FILE), _of_bytes(CARD_FILE, card)]
    listed = [ArtifactFile(path=file.path, sha256=file.sha256, size_bytes=file.size) for file in files]
    stored = _optional(output, provenance.PROVENANCE_FILE)
    statement = provenance.about(stored, sorted(listed, key=lambda file: file.path), config, _report(output))
    files.append(_of_bytes(provenance.PROVENANCE_FILE, statement))
    files.sort(key=lambda file: file.path)
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    return Bundle(job=config.job.uid, files=tuple(files), sums=_of_bytes(SUMS_FILE, sums.encode()))


def _of_artifact(file: ArtifactFile, directory: Path) -> CopiedFile:
    return CopiedFile(file.path, file.sha256, file.size_bytes, directory=directory)


def _of_bytes(path: str, content: bytes) -> CopiedFile:
    return CopiedFile(path, hashlib.sha256(content).hexdigest(), len(content), content=content)


def _optional(directory: Path, name: str) -> bytes | None:
    """A file next to the artifact; older releases wrote fewer."""
    try:
        return read_file(directory, name, _FIELD, _SMALL_BYTES)
    except FileNotFoundError:
        return None


def _report(output: Path) -> Report:
    try:
        return Report.model_validate_json(read_file(output, REPORT_FILE, _FIELD, MAX_REPORT_BYTES))
    except (OSError, ValidationError) as error:
        message = f"{REPORT_FILE} on the job's claim cannot be read"
        raise BadInput(_FIELD, message, "Find out what else writes to the claim.") from error
