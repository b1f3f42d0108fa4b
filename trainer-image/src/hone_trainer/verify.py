"""The check of an artifact before it is served, and of its base: that the files have the expected content.

    python -m hone_trainer.verify <directory> <digest> [--base <directory> --base-digest <digest>]

An init container of a server runs it, with the digests that the job reported: of an adapter, also that of its base. A
difference ends it with exit code 64, the code of BadInput, and with the reason as termination message in plain text.
`report.json`, if it is next to the directory and has the same digest, tells which files differ; nothing else of it is
trusted. All files are read at each start. To remember sizes and times of those that were checked, a place would be
needed that outlives the pod and that nobody else can write to, and times on a claim can be set by all who write there.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from hone.contract.exits import FailureClass, exit_code
from hone.contract.results import TERMINATION_MESSAGE_PATH
from hone_trainer.artifact.difference import base_difference, difference
from hone_trainer.protocol.errors import MAX_MESSAGE, clip
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.results import TERMINATION_LOG_ENV

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Check the directory. Returns the exit code; the termination message is written where it is not 0."""
    parser = argparse.ArgumentParser(prog="hone_trainer.verify", description="Check an artifact against its digest.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("digest", help="sha256: and 64 hex digits, as in the FineTuneJob's status.artifact")
    parser.add_argument("--base", type=Path, help="directory of the model that the adapter was trained on")
    parser.add_argument("--base-digest", help="its digest, as in status.artifact.baseDigest")
    options = parser.parse_args(arguments)
    setup_logging()
    problem = difference(options.directory, options.digest)
    if problem is None and options.base is not None:
        problem = base_difference(options.base, options.base_digest or "", options.directory)
    if problem is None:
        logger.info("The artifact has the expected digest", extra={"digest": options.digest})
        return 0
    logger.error(problem)
    path = Path(os.environ.get(TERMINATION_LOG_ENV) or TERMINATION_MESSAGE_PATH)
    path.write_text(clip(problem, MAX_MESSAGE))
    return exit_code(FailureClass.BAD_INPUT)


if __name__ == "__main__":
    sys.exit(main())
