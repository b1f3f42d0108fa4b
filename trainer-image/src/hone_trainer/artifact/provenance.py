"""The provenance of an artifact: an in-toto statement of what it was made from, with the predicate of SLSA.

It is not signed. It says what the run knew of itself; whoever signs it, such as with cosign, says that they believe it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hone.contract.report import ArtifactFile, Report
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.protocol.runconfig import digest_of

PROVENANCE_FILE = "provenance.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE, BUILDER = "https://hone.dev/FineTuneJob/v1alpha1", "https://hone.dev/trainer"
_BASE_FILE, _MAX_FILES = "base/", 1000
_SHA256 = re.compile(r"(?:.*@)?sha256:([0-9a-f]{64})")

Json = dict[str, Any]


def statement(config: RunConfig, report: Report, planned: PlanFile | None, image: str | None) -> bytes:
    """The statement about an artifact.

    Args:
        config: the run.
        report: its report.
        planned: its plan; None where it is not at hand.
        image: name of the trainer image; None: unknown.
    """
    return _encoded(report.files, _predicate(config, report, planned, image))


def about(content: bytes | None, files: Iterable[ArtifactFile], config: RunConfig, report: Report) -> bytes:
    """The statement of an artifact as one about a copy, whose files may be others; of older releases there is none."""
    try:
        predicate = json.loads(content or b"")["predicate"]
    except (ValueError, LookupError, TypeError, RecursionError):
        predicate = _predicate(config, report, None, None)
    return _encoded(files, predicate)


def _encoded(files: Iterable[ArtifactFile], predicate: Json) -> bytes:
    subject = [{"name": file.path, "digest": {"sha256": file.sha256}} for file in files]
    content = {
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _predicate(config: RunConfig, report: Report, planned: PlanFile | None, image: str | None) -> Json:
    download = next((each for each in planned.downloads if each.field == "spec.model"), None) if planned else None
    dependencies = [
        _dependency("base", report.artifact.base_digest, uri=download.uri if download else None)
        | ({"annotations": {"model": config.model_name, **({"commit": download.revision} if download else {})}}),
        *_base_files(planned.model_files if planned else {}),
        _dependency("data", report.dataset.digest),
        _dependency("runConfig", digest_of(config)),
        _dependency("trainerImage", image, uri=image),
    ]
    parameters = {
        "baseModel": config.model_name,
        "objective": str(config.objective),
        "method": config.method.to_dict(),
        "hyperparameters": config.hyperparameters.to_dict(),
        "seed": config.hyperparameters.seed,
    }
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": {"artifactDigest": report.artifact.digest},
            "resolvedDependencies": [each for each in dependencies if each.keys() & {"digest", "uri"}],
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": {"invocationId": config.job.uid},
        },
    }


def _base_files(files: Mapping[str, str]) -> list[Json]:
    if len(files) > _MAX_FILES:
        return []
    return [{"name": _BASE_FILE + name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]


def base_files(content: bytes) -> dict[str, str]:
    """SHA-256 of each file of the base by the statement about an artifact; empty where it names none."""
    try:
        entries = json.loads(content)["predicate"]["buildDefinition"]["resolvedDependencies"]
        named = [(str(each["name"]), each) for each in entries]
        return {
            name.removeprefix(_BASE_FILE): str(each["digest"]["sha256"])
            for name, each in named
            if name.startswith(_BASE_FILE)
        }
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}


def _dependency(name: str, digest: str | None, uri: str | None = None) -> Json:
    """A resource descriptor. A digest that is not over one file's bytes has Hone's own name, as in-toto requires."""
    entry: Json = {"name": name, **({"uri": uri} if uri else {})}
    if match := _SHA256.fullmatch(digest or ""):
        entry["digest"] = {"sha256" if name == "trainerImage" else "hone.dev/sha256": match[1]}
    return entry
