"""`<run>/plan.json`: what prepare decided, for the steps after it. Frozen once written."""

import os
import tempfile
from pathlib import Path

from hone.contract.base import Model
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import DownloadedModel
from hone.contract.runconfig import RunConfig
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.searchfile import load_search, with_settings

PLAN_FILE = "plan.json"


class PlanFile(Model):
    """The content of plan.json."""

    plan: Plan
    dataset: DatasetSummary
    prepared: str
    """Directory of the prepared data, for `hone_trainer.data.prepared.load_prepared`."""
    run_config_digest: str
    """Digest of the RunConfig this was made for."""
    model_digest: str
    """Digest of the base model's config, tokenizer files and weights; names the base in caches."""
    model_files: dict[str, str] = {}
    """SHA-256 of each file of that digest, in hex, by name; empty from older releases."""
    training_digest: str | None = None
    """Digest of what the RunConfig says of training (`runconfig.training_digest`); None from older releases."""
    downloads: list[DownloadedModel] = []
    """The models that were downloaded, with their commits."""


def load_plan(config: RunConfig) -> PlanFile | None:
    """The plan that prepare made for this very RunConfig, or None where there is none.

    Raises:
        ValueError: the file is there but is not a plan.
    """
    path = Path(config.paths.run) / PLAN_FILE
    if not path.exists():
        return None
    plan = PlanFile.model_validate_json(path.read_text())
    return plan if plan.run_config_digest == digest_of(config) else None


def require_plan(config: RunConfig) -> PlanFile:
    """The plan that prepare made for this very RunConfig, with the settings that a search has chosen.

    Raises:
        BadInput: there is none.
        ValueError: the file is there but is not a plan.
    """
    plan = load_plan(config)
    if plan is None:
        raise BadInput("RunConfig", f"there is no plan for it in {config.paths.run}", "Run the prepare step first.")
    search = load_search(config) if config.search else None
    return plan if search is None else plan.model_copy(update={"plan": with_settings(plan.plan, search.chosen)})


def save_plan(config: RunConfig, plan: PlanFile) -> Path:
    """Write plan.json, whole or not at all, and return its path."""
    run = Path(config.paths.run)
    run.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".plan-", suffix=".json", dir=run)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(plan.to_json())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(run / PLAN_FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return run / PLAN_FILE
