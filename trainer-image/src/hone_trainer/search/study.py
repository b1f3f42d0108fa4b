"""The study, by Optuna: which settings the next trial has, whether a trial continues, and the journal of whole trials.

    <run>/search/journal.log     Optuna's journal: one line per trial that has ended

A trial is written once it has ended, as one line: a process that is killed loses the trial that it was at and no
other. What comes next depends on the trials that have ended and on the seed alone, so the trial that is made again has
the same settings, and so have those after it.
"""

import contextlib
import random
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from hone.contract.search import WHOLE, PlannedRange, PlannedSearch, Pruner, Sampler, Search, Values

JOURNAL = Path("search") / "journal.log"
"""Below the run's own directory."""
REASON = "reason"
"""Attribute of a trial that failed."""
SETTINGS = "settings"
"""Attribute with the settings of a trial."""
STEPS = "steps"
"""Attribute with the optimizer steps that a trial has made."""
_NAME = "search"

optuna.logging.set_verbosity(optuna.logging.WARNING)


def evaluation_steps(steps: int) -> list[int]:
    """The steps after which a trial of so many steps is evaluated."""
    return sorted({max(1, steps // 4), max(1, steps // 2), steps})


class Study:
    """The trials of a run, on the rank that decides.

    Args:
        search: what the spec asks for.
        planned: the trials and their ranges.
        defaults: the plan's own settings, which trial 0 has.
        run: the run's own directory.
        rewarded: whether trials are judged by their reward, the higher the better, and not by a loss.
    """

    def __init__(
        self, search: Search, planned: PlannedSearch, defaults: Values, run: Path, *, rewarded: bool = False
    ) -> None:
        self._search, self._planned, self._defaults = search, planned, defaults
        self._ranges = {name: each for name, each in planned.parameters if each is not None}
        path = run / JOURNAL
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        direction = "maximize" if rewarded else "minimize"
        self._journal = optuna.create_study(study_name=_NAME, storage=storage, direction=direction, load_if_exists=True)
        # Trials that are under way are in memory alone.
        self._study = optuna.create_study(direction=direction, pruner=_pruner(search, planned))
        self._study.add_trials(self._journal.trials)

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended, in order."""
        return [trial for trial in self._study.trials if trial.state.is_finished()]

    @property
    def is_over(self) -> bool:
        """Whether all trials have ended."""
        return len(self.ended) >= self._planned.trials

    def begin(self) -> tuple[Trial, Values]:
        """The next trial and its settings; the defaults first."""
        number = len(self.ended)
        self._study.sampler = _sampler(self._search, self._planned.trials, number)
        own = {name: getattr(self._defaults, name) for name in self._ranges}
        if number == 0:
            self._study.enqueue_trial(own)
        elif number <= _first_spread(self._planned.trials) and self._search.sampler is Sampler.TPE:
            self._study.enqueue_trial(_spread(self._search, self._ranges, number))
        trial = self._study.ask()
        # The plan's own settings may be outside of the ranges: the sampler then learns nothing from them.
        values = {
            name: own[name] if number == 0 and not _contains(name, each, own[name]) else _suggest(trial, name, each)
            for name, each in self._ranges.items()
        }
        trial.set_user_attr(SETTINGS, values)
        return trial, Values.model_validate(values)

    def end(self, trial: Trial, state: TrialState, steps: int, reason: str | None = None) -> None:
        """Record how a trial ended, in one write."""
        trial.set_user_attr(STEPS, steps)
        if reason:
            trial.set_user_attr(REASON, reason)
        number = trial.number
        values = self._study.trials[number].intermediate_values
        value = values[max(values)] if state is TrialState.COMPLETE else None
        self._study.tell(trial, value, state=state)
        self._journal.add_trial(self._study.trials[number])


def settings(trial: FrozenTrial) -> Values:
    """The settings of a trial that has ended."""
    return Values.model_validate(trial.user_attrs[SETTINGS])


def _repair(path: Path) -> None:
    """Remove what a process that was killed has left: half a line, and its lock. No other process writes the file."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("rb+") as file:
                file.truncate(len(whole))


def _pruner(search: Search, planned: PlannedSearch) -> BasePruner:
    if search.pruner is Pruner.NONE:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=evaluation_steps(planned.steps_per_trial)[0], reduction_factor=2)


def _sampler(search: Search, trials: int, number: int) -> BaseSampler:
    """The sampler of one trial, whose choice depends on nothing that was drawn before."""
    seed = search.seed + number
    if search.sampler is Sampler.RANDOM:
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=1 + _first_spread(trials))


def _first_spread(trials: int) -> int:
    """Trials after the first one that cover the ranges evenly, before the sampler learns from them."""
    return max(1, trials // 2)


def _contains(name: str, each: PlannedRange, value: float | None) -> bool:
    if value is None:
        return False
    if each.values is not None:
        return value in each.values
    return each.min is not None and each.max is not None and each.min <= value <= each.max


def _suggest(trial: Trial, name: str, each: PlannedRange) -> float | int:
    if each.values is not None:
        return _typed(name, float(str(trial.suggest_categorical(name, each.values))))
    least, most = _bounds(name, each)
    if name in WHOLE:
        return trial.suggest_int(name, int(least), int(most), log=bool(each.log))
    return trial.suggest_float(name, least, most, log=bool(each.log))


def _spread(search: Search, ranges: dict[str, PlannedRange], number: int) -> dict[str, float | int]:
    """The settings of one of the first trials, which cover the ranges evenly: each as far as possible from the others.

    They are multiples of irrational numbers modulo 1, in each dimension from a random start (M. Roberts' generalized
    golden ratio: the root of x^(d + 1) = x + 1 in d dimensions).
    """
    chance, ratio = random.Random(search.seed), 2.0
    for _ in range(50):
        ratio = (1 + ratio) ** (1 / (len(ranges) + 1))
    return {
        name: _at(name, each, (chance.random() + number / ratio**dimension) % 1)
        for dimension, (name, each) in enumerate(ranges.items(), start=1)
    }


def _at(name: str, each: PlannedRange, share: float) -> float | int:
    """The value at a share, from 0 to 1, of a range."""
    if each.values is not None:
        return _typed(name, each.values[int(share * len(each.values))])
    least, most = _bounds(name, each)
    if each.log:
        return _typed(name, least * (most / least) ** share)
    return _typed(name, least + (most - least) * share)


def _bounds(name: str, each: PlannedRange) -> tuple[float, float]:
    if each.min is None or each.max is None:
        raise ValueError(f"{name} has no range")
    return each.min, each.max


def _typed(name: str, value: float) -> float | int:
    return round(value) if name in WHOLE else value
