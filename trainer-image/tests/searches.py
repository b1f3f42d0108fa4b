"""Tiny runs with a search before their training."""

from pathlib import Path
from typing import Any

import tiny

from hone.contract.objectives import OBJECTIVES
from hone.contract.runconfig import RunConfig
from hone.contract.search import PlannedParameters, PlannedRange, PlannedSearch, Search
from hone_trainer.protocol.planfile import load_plan, save_plan
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.search.study import Study, settings

RATES = PlannedParameters(learning_rate=PlannedRange(min=1e-4, max=1.0, log=True))


def make_search(
    root: Path,
    *,
    trials: int = 4,
    steps_per_trial: int = 12,
    parameters: PlannedParameters = RATES,
    search: Search | None = None,
    **options: Any,
) -> RunConfig:
    """A run as `tiny.make_run` makes it, whose plan has these trials."""
    config = tiny.make_run(root, evaluate=options.pop("evaluate", 3), **options)
    planned = load_plan(config)
    assert planned
    config = config.model_copy(update={"search": search or Search(trials=trials, seed=3)})
    (root / "run.json").write_text(config.to_json())
    trials_planned = PlannedSearch(
        trials=trials, steps_per_trial=steps_per_trial, total_steps=trials * steps_per_trial, parameters=parameters
    )
    plan = planned.plan.model_copy(update={"search": trials_planned})
    save_plan(config, planned.model_copy(update={"plan": plan, "run_config_digest": digest_of(config)}))
    return config


def journal(config: RunConfig) -> list[tuple[int, str, dict[str, object], dict[int, float]]]:
    """Number, state, settings and losses of every trial in the journal."""
    planned = load_plan(config)
    assert planned and planned.plan.search and config.search
    from hone_trainer.protocol.searchfile import settings_of

    names = [name for name, each in planned.plan.search.parameters if each is not None]
    own, rewarded = settings_of(planned.plan, names), OBJECTIVES[config.objective].needs.reward
    study = Study(config.search, planned.plan.search, own, Path(config.paths.run), rewarded=rewarded)
    return [
        (trial.number, trial.state.name, settings(trial).to_dict(), trial.intermediate_values) for trial in study.ended
    ]
