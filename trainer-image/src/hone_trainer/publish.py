"""The publish step: copies the artifact to a store, a hub or a registry, whole or not at all.

    python -m hone_trainer.publish

It alone has the credentials for that, imports none of the libraries that load models, and runs no code of the user's.
Run again, it sends only what has not arrived.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from hone.contract.exits import exit_code
from hone.contract.results import PublishedModel, StepResult
from hone.contract.runconfig import Publication
from hone.contract.stores import S3_KEYS, S3_OPTIONAL_KEYS
from hone.contract.verdict import Verdict
from hone_trainer.protocol import limits, secrets
from hone_trainer.protocol.addresses import hosts_of_store, private_address, public_only
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import load_attempt, load_run_config
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.publishing import failures, hub, oci, s3
from hone_trainer.publishing.bundle import Bundle, bundle
from hone_trainer.publishing.failures import NotReached, Refused
from hone_trainer.publishing.secrets import parts

SECONDS = 3600.0
"""How long the step may take, in addition to what the artifact's size allows."""
BYTES_PER_SECOND = 2_000_000
"""How slow a connection may be."""

Publish = Callable[[Bundle, Publication, Mapping[str, str]], PublishedModel]
DESTINATIONS: dict[str, tuple[Publish, tuple[str, ...]]] = {
    "s3": (s3.publish, (*S3_KEYS, *S3_OPTIONAL_KEYS)),
    "hf": (hub.publish, ("HF_TOKEN",)),
    "oci": (oci.publish, ("DOCKER_AUTH_CONFIG",)),
}
"""By the scheme of the URI: the function that copies, and the variables with its credentials."""

logger = logging.getLogger(__name__)


def main() -> int:
    """Publish the artifact, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = StepResult(step="publish", published=_publish(_take_secrets()))
    except Exception as error:
        if not isinstance(error, BadInput | Preempted | NotReached):
            logger.exception("publish failed")
        result = StepResult(step="publish", verdict=_verdict(error))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def _publish(credentials: Mapping[str, str]) -> PublishedModel:
    config, copy = load_run_config(), load_attempt().publish
    if copy is None:
        raise BadInput("spec.output.uri", "is not set", "Set it, or remove this step's Job.")
    publish, variables = DESTINATIONS[copy.uri.partition("://")[0]]
    files = bundle(config, copy)
    limits.allow(2 * files.size / BYTES_PER_SECOND)
    logger.info("Publishing", extra={"uri": copy.uri, "files": len(files.files), "bytes": files.size})
    try:
        with public_only(_trusted(copy)):
            published = publish(files, copy, {name: credentials[name] for name in variables if name in credentials})
    except Exception as error:
        if refusal := private_address(error):
            raise failures.private(copy, str(refusal)) from error
        raise
    logger.info("Published", extra={"uri": copy.uri, "digest": published.digest, "revision": published.revision})
    return published


def _trusted(copy: Publication) -> list[str]:
    """The destination's hosts, if they are the administrator's and may have any address."""
    if not copy.is_trusted:
        return []
    if copy.uri.startswith("s3://"):
        return hosts_of_store(copy.s3.endpoint if copy.s3 else None, copy.uri)
    host = urlsplit(copy.endpoint or f"//{copy.uri.partition('://')[2]}").hostname
    return [host] if host else []


def _take_secrets() -> dict[str, str]:
    """The credentials, which no library has to see in the environment, without the line break at the end of a file."""
    names = {name for _, variables in DESTINATIONS.values() for name in variables}
    values = {name: value for name in names if (value := os.environ.pop(name, "").strip())}
    secrets.take(parts(values))
    return values


def _verdict(error: Exception) -> Verdict:
    if isinstance(error, Refused | NotReached):
        return error.verdict()
    return from_exception(error, None, None, None, reads_rows=True)


def _stop(*_: object) -> None:
    # PID 1 has no default handler: without this it would run until the grace period ends.
    raise Preempted("stopped by SIGTERM; the next attempt does what is left")


if __name__ == "__main__":
    sys.exit(limits.supervised("publish", main, SECONDS))
