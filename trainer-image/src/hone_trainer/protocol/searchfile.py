"""`<run>/search.json`: what a search has shown, and which settings are trained; written once all trials have ended."""

from pathlib import Path

from pydantic import ValidationError

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.search import SearchRecord, Values
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.runconfig import digest_of

SEARCH_FILE = "search.json"

_MARK = "search/out-of-memory-"
_OF_PLAN = {"rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout"}
"""Names of settings in the plan, where they differ."""


def load_search(config: RunConfig) -> SearchRecord | None:
    """The search that this very RunConfig has made, or None as long as it has not ended."""
    try:
        record = SearchRecord.model_validate_json((Path(config.paths.run) / SEARCH_FILE).read_text())
    except (OSError, ValidationError):
        return None
    return record if record.run_config == digest_of(config) else None


def save_search(config: RunConfig, record: SearchRecord) -> None:
    """Write the file, whole or not at all."""
    content = record.model_copy(update={"run_config": digest_of(config)}).to_json().encode()
    write_atomic(Path(config.paths.run) / SEARCH_FILE, content, durable=True)


def out_of_memory_mark(config: RunConfig, number: int) -> Path:
    """The file that says that a trial ran out of memory, and is not made again."""
    return Path(config.paths.run) / f"{_MARK}{number}"


def out_of_memory_trials(config: RunConfig) -> int:
    """How many trials have such a file."""
    return len([*Path(config.paths.run).glob(f"{_MARK}*")])


def with_settings(plan: Plan, settings: Values) -> Plan:
    """The plan with settings that were searched. Where alpha is none of them, it keeps its ratio to the rank."""
    changes = {_OF_PLAN.get(name, name): value for name, value in settings if value is not None}
    if settings.rank is not None and settings.alpha is None and plan.lora_rank and plan.lora_alpha:
        changes["lora_alpha"] = max(1, round(plan.lora_alpha * settings.rank / plan.lora_rank))
    return plan.model_copy(update=changes)


def settings_of(plan: Plan, names: list[str]) -> Values:
    """The plan's own values of these settings."""
    return Values.model_validate({name: getattr(plan, _OF_PLAN.get(name, name)) for name in names})
