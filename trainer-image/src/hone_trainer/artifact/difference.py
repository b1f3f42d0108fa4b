"""How an artifact on a volume differs from what its job wrote, by the digest that the job reported."""

from pathlib import Path

from pydantic import ValidationError

from hone.contract.report import REPORT_FILE, ArtifactFile, Manifest
from hone.contract.runconfig import UpstreamArtifact
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


def _manifest(directory: Path, digest: str) -> list[ArtifactFile] | None:
    """The files that the artifact had when the job wrote it; None if no report with this digest is there."""
    try:
        report = read_file(directory.parent, REPORT_FILE, "status.artifact", MAX_REPORT_BYTES)
        files = Manifest.model_validate_json(report).files
    except (OSError, BadInput, ValidationError):
        return None
    return files if manifest.digest_of(files) == digest else None
