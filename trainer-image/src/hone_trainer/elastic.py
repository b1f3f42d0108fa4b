"""torchrun, with its word on dead ranks kept: `python -m hone_trainer.elastic <torchrun's arguments>`.

torchrun itself turns every rank's exit code and signal into its own exit code 1 and a table on stderr. Here the
ranks that it saw die first are written to the status directory, before it sends SIGTERM to the others.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from hone_trainer.logs import setup_logging
from hone_trainer.status import StatusDir


def main() -> int:
    """Run the ranks; 0 when all of them ended with 0, else 1."""
    setup_logging()
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        StatusDir.from_env().write_failures(
            {
                rank: {"exitCode": failure.exitcode, "time": float(failure.timestamp)}
                for rank, failure in error.failures.items()
            }
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
