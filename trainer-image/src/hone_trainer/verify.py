"""The check of an artifact before it is served: that a directory has the expected files with the expected content.

    python -m hone_trainer.verify <directory> <digest>

An init container of a server runs it, with the digest that the job reported. A difference ends it with exit code 64,
the code of BadInput, and with the reason as termination message in plain text. `report.json`, if it is next to the
directory and has the same digest, tells which files differ; nothing else of it is trusted.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from hone.contract.exits import FailureClass, exit_code
from hone.contract.report import REPORT_FILE, ArtifactFile, Manifest
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone_trainer.protocol import manifest
from hone_trainer.protocol.errors import MAX_MESSAGE, BadInput, clip
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.results import TERMINATION_LOG_ENV
from hone_trainer.protocol.volumes import read_file

MAX_REPORT_BYTES = 64 << 20

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Check the directory. Returns the exit code; the termination message is written where it is not 0."""
    parser = argparse.ArgumentParser(prog="hone_trainer.verify", description="Check an artifact against its digest.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("digest", help="sha256: and 64 hex digits, as in the FineTuneJob's status.artifact")
    options = parser.parse_args(arguments)
    setup_logging()
    problem = verify(options.directory, options.digest)
    if problem is None:
        logger.info("The artifact has the expected digest", extra={"digest": options.digest})
        return 0
    logger.error(problem)
    path = Path(os.environ.get(TERMINATION_LOG_ENV) or TERMINATION_MESSAGE_PATH)
    path.write_text(clip(problem, MAX_MESSAGE))
    return exit_code(FailureClass.BAD_INPUT)


def verify(directory: Path, digest: str) -> str | None:
    """How the directory differs from what has this digest; None if it does not."""
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


if __name__ == "__main__":
    sys.exit(main())
