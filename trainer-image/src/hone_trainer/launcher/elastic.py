"""torchrun, with a record of the ranks that died: `python -m hone_trainer.launcher.elastic <torchrun's arguments>`.

torchrun itself turns every rank's exit code and signal into its own exit code 1 and a table on stderr. Here the
ranks that it saw die first are written to the status directory, before it sends SIGTERM to the others.
"""

import os
import sys
import traceback

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from hone.contract.runconfig import NODE_RANK_ENV
from hone_trainer.launcher import store
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.status import StatusDir
from hone_trainer.protocol.verdicts import from_exception


def main() -> int:
    """Run the ranks; 0 when all of them ended with 0, else 1."""
    setup_logging()
    status = StatusDir.from_env()
    store.register()
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        status.write_failures(
            {
                rank: {"exitCode": failure.exitcode, "time": float(failure.timestamp)}
                for rank, failure in error.failures.items()
            }
        )
        return 1
    except Exception as error:
        # Before there are ranks, or where torchrun itself fails.
        traceback.print_exc()
        node = int(os.environ.get(NODE_RANK_ENV) or "0")
        status.write_verdict(None, from_exception(error, None, node, None))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
