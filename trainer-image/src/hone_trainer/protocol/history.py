"""`<run>/history.json`: the figures of a run's attempts, written while it trains and read for the report."""

from pathlib import Path

from pydantic import ValidationError

from hone.contract.history import History
from hone.contract.runconfig import RunConfig

HISTORY_FILE = "history.json"


def load_history(config: RunConfig) -> History:
    """The history of the run's attempts so far; empty where there is none that can be read."""
    try:
        return History.model_validate_json((Path(config.paths.run) / HISTORY_FILE).read_text())
    except (OSError, ValidationError):
        return History()
