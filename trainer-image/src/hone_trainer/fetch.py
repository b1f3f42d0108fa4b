"""The steps before a server of a published model: what the model is, and its download with all checks.

    python -m hone_trainer.fetch inspect
    python -m hone_trainer.fetch fetch

The environment variable `HONE_FETCH` has a `Fetch`, and the credentials are variables that it names; both end with this
container. `inspect` reads a few small files and reports an `InspectedModel`. `fetch` is the init container of a server:
it downloads the model and its base, or finds them mounted, and the server starts only if they are what `inspect` saw.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from hone.contract.exits import exit_code
from hone.contract.report import SUMS_FILE, ArtifactFile
from hone.contract.results import InspectedModel, StepResult
from hone.contract.runconfig import Download
from hone.contract.served import FETCH_ENV, Fetch
from hone_trainer.artifact.difference import base_difference
from hone_trainer.artifact.inspected import SMALL_FILES, summary, weights_bytes
from hone_trainer.downloads.download import ensure_downloaded, inspected
from hone_trainer.downloads.published import SUMS_BYTES, check_sums, digest_of, parsed
from hone_trainer.downloads.remote import Unreachable
from hone_trainer.models.untrusted import check_model
from hone_trainer.protocol import limits, manifest
from hone_trainer.protocol.errors import ArtifactChanged, BadInput
from hone_trainer.protocol.logs import quiet_libraries, setup_logging
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.protocol.volumes import read_file

SECONDS = 1800.0
"""How long it may take, in addition to what the model's size allows."""
READ_BYTES_PER_SECOND = 20_000_000
FIELD, BASE_FIELD = "spec.model", "spec.model.base"

_NO_DIRECTORY = (
    "Correct its path. If an image has it, the API server may have no image volumes, and have removed this one: copy "
    "the files to a claim, or publish the model to s3:// or hf://."
)

logger = logging.getLogger(__name__)


def inspect(fetch: Fetch) -> InspectedModel:
    """What the model is, and the commits that its branches name now.

    Raises:
        BadInput: it is no artifact of a job, or needs another base than the spec names.
        Unreachable: a failure that may pass.
    """
    with tempfile.TemporaryDirectory() as scratch:
        directory, sizes, revision = _inspected(fetch, Path(scratch))
        field = _place(fetch)
        content = read_file(directory, SUMS_FILE, field, SUMS_BYTES)
        check_sums(field, content, fetch.digest or "")
        artifact = summary(directory, sizes, digest_of(content), field)
        check_model(directory, field)
    if artifact.kind == "Adapter" and artifact.base_digest is None:
        raise BadInput(field, "is an adapter whose provenance.json does not name its base", "Publish it again.")
    if (artifact.kind == "Adapter") != (fetch.base_directory is not None):
        raise _base_wanted(artifact.kind == "Adapter", artifact.base)
    weights, base_revision = weights_bytes(sizes), None
    if fetch.base is not None:
        listing = inspected(fetch.base, (), Path(fetch.base.downloaded))
        weights += listing.size
        base_revision = _commit(fetch.base, listing.revision)
    elif fetch.base_directory is not None:
        weights += weights_bytes(_sizes(Path(fetch.base_directory), BASE_FIELD))
    return InspectedModel(artifact=artifact, weights_bytes=weights, revision=revision, base_revision=base_revision)


def fetch_model(fetch: Fetch) -> None:
    """Download what is to be downloaded, and compare everything with its digest.

    Raises:
        ArtifactChanged: the model or its base is not what it is to be; it names a file.
        BadInput, Unreachable: as of `inspect`.
    """
    directory = Path(fetch.directory)
    if fetch.artifact is not None:
        ensure_downloaded(fetch.artifact)
    else:
        _check_mounted(directory, fetch.digest or "")
    check_model(directory, _place(fetch))
    if fetch.base is not None:
        ensure_downloaded(fetch.base)
    if fetch.base_directory is None:
        return
    base = Path(fetch.base_directory)
    check_model(base, BASE_FIELD)
    limits.allow(sum(_sizes(base, BASE_FIELD).values()) / READ_BYTES_PER_SECOND)
    if problem := base_difference(base, fetch.base_digest or "", directory):
        raise ArtifactChanged(BASE_FIELD, problem, "Name the model that the adapter was trained on.")


def _inspected(fetch: Fetch, scratch: Path) -> tuple[Path, Mapping[str, int], str | None]:
    """A directory with the artifact's small files, the sizes of all its files, and its commit."""
    if fetch.artifact is None:
        directory = Path(fetch.directory)
        return directory, _sizes(directory, _place(fetch)), None
    listing = inspected(fetch.artifact, SMALL_FILES, scratch / "artifact")
    sizes = {file.path: file.size or 0 for file in listing.files}
    return scratch / "artifact", sizes, _commit(fetch.artifact, listing.revision)


def _commit(download: Download, revision: str) -> str | None:
    return revision if download.uri.startswith("hf://") else None


def _sizes(directory: Path, field: str) -> dict[str, int]:
    """Bytes of the files in a directory that is mounted."""
    if not directory.is_dir():
        raise BadInput(field, f"there is no directory {directory}", _NO_DIRECTORY)
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def _check_mounted(directory: Path, digest: str) -> None:
    """Compare the files of a mounted artifact with its SHA256SUMS, and that with its digest."""
    field = f"{FIELD}.image"
    sizes = _sizes(directory, field)
    if SUMS_FILE not in sizes:
        raise BadInput(field, f"has no {SUMS_FILE}, so it is no artifact that a job published", "Name one.")
    content = read_file(directory, SUMS_FILE, field, SUMS_BYTES)
    check_sums(field, content, digest)
    sums = parsed(content, field)
    limits.allow(sum(sizes.values()) / READ_BYTES_PER_SECOND)
    files = [ArtifactFile(path=name, sha256=sha256, size_bytes=sizes.get(name, 0)) for name, sha256 in sums.items()]
    if problems := manifest.differences(directory, files, without=(SUMS_FILE,)):
        remedy = "Publish the artifact again, and name its digest."
        raise ArtifactChanged(field, manifest.in_words(problems), remedy)


def _base_wanted(is_adapter: bool, base: str | None) -> BadInput:
    if is_adapter:
        name = f" of {base!a}" if base else ""
        remedy = "Set claim, uri or image to the model that it was trained on."
        return BadInput(BASE_FIELD, f"is required: the model is an adapter{name}", remedy)
    return BadInput(BASE_FIELD, "is not allowed: the model is no adapter", "Remove it.")


def _place(fetch: Fetch) -> str:
    return f"{FIELD}.image" if fetch.artifact is None else f"{FIELD}.uri"


TASKS: Mapping[str, Callable[[Fetch], InspectedModel | None]] = {"inspect": inspect, "fetch": fetch_model}


def run(task: str) -> int:
    """Do a task and write its result as termination message. Returns the exit code."""
    setup_logging()
    quiet_libraries()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, _stop)
    try:
        fetch = Fetch.model_validate_json(os.environ.pop(FETCH_ENV))
        result = StepResult(step=task, inspected=TASKS[task](fetch))
    except Exception as error:
        if not isinstance(error, BadInput | Preempted | Unreachable):
            logger.exception("%s failed", task)
        result = StepResult(step=task, verdict=from_exception(error, None, None, None))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def _stop(*_: object) -> None:
    # PID 1 has no default handler: without this it would run until the grace period ends.
    raise Preempted("stopped by SIGTERM; the next attempt does what is left")


def main(arguments: list[str] | None = None) -> int:
    """Run a task in a process that is ended when it takes too long."""
    parser = argparse.ArgumentParser(prog="hone_trainer.fetch", description="Get a published model for a server.")
    parser.add_argument("task", choices=sorted(TASKS))
    task = parser.parse_args(arguments).task
    return limits.supervised(task, lambda: run(task), SECONDS)


if __name__ == "__main__":
    sys.exit(main())
