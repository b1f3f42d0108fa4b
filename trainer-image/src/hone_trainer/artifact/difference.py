"""How an artifact on a volume differs from what its job wrote, by the digest that the job reported."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from hone.contract.report import REPORT_FILE, ArtifactFile, BaseFile, BaseFiles, Manifest
from hone.contract.runconfig import UpstreamArtifact
from hone_trainer.artifact import provenance
from hone_trainer.models.facts import is_model, model_digests
from hone_trainer.protocol import manifest
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import read_file

MAX_REPORT_BYTES = 64 << 20


def check_artifacts(artifacts: list[UpstreamArtifact]) -> None:
    """Refuse artifacts of other jobs that are no longer what these reported.

    Raises:
        BadInput: naming field, job and files.
    """
    for artifact in artifacts:
        if problem := difference(Path(artifact.path), artifact.digest):
            raise BadInput(
                artifact.field,
                f"that job's model was changed after it was written: {problem}",
                "Find out what else writes to its claim, then delete that job and this one, and apply both again.",
            )


def difference(directory: Path, digest: str) -> str | None:
    """How the directory differs from what has this digest; None if it does not.

    `report.json` next to it tells which files differ, if it has the same digest; nothing else of it is trusted.
    """
    try:
        files = manifest.list_files(directory)
    except (manifest.NoRegularFile, FileNotFoundError, NotADirectoryError) as error:
        return str(error)
    actual = manifest.digest_of(files)
    if actual == digest:
        return None
    problem = f"its files have the digest {actual} instead of {digest}"
    expected = _manifest(directory, digest)
    return problem + (f": {manifest.in_words(manifest.compare(files, expected))}" if expected else "")


def base_files(base: Path) -> list[BaseFile]:
    """The files directly in a base model's directory, of which its digest is made, without reading them."""
    files = []
    for path in sorted(base.iterdir()):
        if path.is_file():
            status = path.stat()
            files.append(BaseFile(path=path.name, size_bytes=status.st_size, modified=status.st_mtime_ns))
    return files


def base_difference(base: Path, digest: str, artifact: Path) -> str | None:
    """How a base model differs from the one that an adapter was trained on; None if it does not.

    Args:
        base: its directory.
        digest: that of the model at that time.
        artifact: the adapter's directory. Provenance and report in it or next to it help to tell which files were
            changed since then; they are not trusted for anything else.
    """
    try:
        if is_model(base, digest):
            return None
    except BadInput as error:
        return f"its base model cannot be read: {error.message}"
    except OSError as error:
        return f"its base model cannot be read: {error.strerror}"
    changed = _changed_by_provenance(base, artifact) or _changed_since(base, artifact)
    names = f": {manifest.in_words(changed)}" if changed else ""
    return f"its base model is not the one that it was trained on, whose digest is {digest}{names}"


def _changed_by_provenance(base: Path, artifact: Path) -> list[str]:
    """Which files of the base have another content; a copy that was published has its provenance among its files."""
    for directory in (artifact, artifact.parent):
        try:
            before = provenance.base_files(
                read_file(directory, provenance.PROVENANCE_FILE, "status.artifact", MAX_REPORT_BYTES)
            )
        except (OSError, BadInput):
            continue
        return _words(before, model_digests(base)[1])
    return []


def _words(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    changed = []
    for path in sorted(before.keys() | after.keys()) if before else []:
        if path not in before:
            changed.append(f"{path!a} was added")
        elif path not in after:
            changed.append(f"{path!a} is missing")
        elif before[path] != after[path]:
            changed.append(f"{path!a} was changed")
    return changed


def _changed_since(base: Path, artifact: Path) -> list[str]:
    """Which files of the base have another size or time than in the report."""
    try:
        report = read_file(artifact.parent, REPORT_FILE, "status.artifact", MAX_REPORT_BYTES)
        before = {file.path: file for file in BaseFiles.model_validate_json(report).base_files}
        after = {file.path: file for file in base_files(base)}
    except (OSError, BadInput, ValidationError):
        return []
    return _words(before, after)


def _manifest(directory: Path, digest: str) -> list[ArtifactFile] | None:
    """The files that the artifact had when the job wrote it; None if no report with this digest is there."""
    try:
        report = read_file(directory.parent, REPORT_FILE, "status.artifact", MAX_REPORT_BYTES)
        files = Manifest.model_validate_json(report).files
    except (OSError, BadInput, ValidationError):
        return None
    return files if manifest.digest_of(files) == digest else None
