"""How an artifact on a volume differs from what its job wrote, by the digest that the job reported."""

from pathlib import Path

from pydantic import ValidationError

from hone.contract.report import REPORT_FILE, ArtifactFile, BaseFile, BaseFiles, Manifest
from hone.contract.runconfig import UpstreamArtifact
from hone_trainer.models.facts import is_model
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
        artifact: the adapter's directory. The report next to it helps to tell which files were changed since then; it
            is not trusted for anything else.
    """
    try:
        if is_model(base, digest):
            return None
    except BadInput as error:
        return f"its base model cannot be read: {error.message}"
    except OSError as error:
        return f"its base model cannot be read: {error.strerror}"
    changed = _changed_base_files(base, artifact)
    names = f": {manifest.in_words(changed)}" if changed else ""
    return f"its base model is not the one that it was trained on, whose digest is {digest}{names}"


def _changed_base_files(base: Path, artifact: Path) -> list[str]:
    try:
        report = read_file(artifact.parent, REPORT_FILE, "status.artifact", MAX_REPORT_BYTES)
        before = {file.path: file for file in BaseFiles.model_validate_json(report).base_files}
        after = {file.path: file for file in base_files(base)}
    except (OSError, BadInput, ValidationError):
        return []
    changed = []
    for path in sorted(before.keys() | after.keys()) if before else []:
        old, new = before.get(path), after.get(path)
        if old != new:
            what = "was added" if old is None else "is missing" if new is None else "was changed"
            changed.append(f"{path!a} {what}")
    return changed


def _manifest(directory: Path, digest: str) -> list[ArtifactFile] | None:
    """The files that the artifact had when the job wrote it; None if no report with this digest is there."""
    try:
        report = read_file(directory.parent, REPORT_FILE, "status.artifact", MAX_REPORT_BYTES)
        files = Manifest.model_validate_json(report).files
    except (OSError, BadInput, ValidationError):
        return None
    return files if manifest.digest_of(files) == digest else None
