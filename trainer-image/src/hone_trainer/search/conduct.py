"""The search on one rank: trial after trial, then the choice. Rank 0 decides, the others do the same."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial, TrialState

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES
from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.search import PlannedSearch, SearchRecord, Values
from hone_trainer.data.prepared import Prepared, chosen_rows
from hone_trainer.objectives.inputs import training_arguments
from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.searchfile import (
    load_search,
    out_of_memory_mark,
    save_search,
    settings_of,
    with_settings,
)
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.search import choice
from hone_trainer.search import trial as trials
from hone_trainer.search.base import LoadedBase, memory_ran_out
from hone_trainer.search.study import JOURNAL, Study, evaluation_steps
from hone_trainer.training import checkpoint
from hone_trainer.training.callbacks import StepHealth
from hone_trainer.training.collectives import gather
from hone_trainer.training.rank_trainer import RankTrainer

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

MakeTrainer = Callable[[Plan, Prepared, Path, "list[TrainerCallback]"], RankTrainer]
MOST_ROWS = 256
"""Most validation rows on which a trial is evaluated."""
LEAST_BATCHES = 30
"""Batches of an evaluation, if there are as many rows: trials are compared batch by batch."""

logger = logging.getLogger(__name__)


@dataclass
class Conductor:
    """Makes the trials of a run.

    Attributes:
        config, plan, prepared: the run; of the prepared rows, the test rows are never touched.
        status: where its state is reported to the launcher.
        first: what is known of this rank.
        health, beats: its last step's loss, and its heartbeat.
        make_trainer: (plan, data, output directory, callbacks) -> the objective's trainer, with `base`.
        base: the model of all trials.
    """

    config: RunConfig
    plan: Plan
    prepared: Prepared
    status: StatusDir
    first: RankStatus
    health: StepHealth
    beats: Beats
    make_trainer: MakeTrainer
    base: LoadedBase
    _reported: float = field(default=0.0)

    def conduct(self) -> SearchRecord:
        """Make the trials that are left, and choose; the same record on every rank."""
        device = self._device()
        record = load_search(self.config) if self._decides else None
        if not self._of_rank_zero(device, record is not None):
            study = self._study() if self._decides else None
            # The memory fallback may have come to a ZeRO stage, under which no trial can be made.
            while not self.plan.zero_stage and not self._of_rank_zero(device, study is not None and study.is_over):
                self._trial(device, study)
            if study is not None:
                record = choice.choose(self._planned, study.ended, self._figures_of, rewarded=self._rewarded)
                save_search(self.config, record)
                logger.info("search", extra={"outcome": record.summary.outcome, "chosen": record.chosen.to_dict()})
        return SearchRecord.model_validate(self._of_rank_zero(device, record.to_dict() if record else None))

    @property
    def _decides(self) -> bool:
        return self.first.rank == 0

    @property
    def _rewarded(self) -> bool:
        return OBJECTIVES[self.config.objective].needs.reward

    @property
    def _planned(self) -> PlannedSearch:
        if self.plan.search is None:
            raise ValueError("the plan has no search")
        return self.plan.search

    @property
    def _directory(self) -> Path:
        return (Path(self.config.paths.run) / JOURNAL).parent

    def _study(self) -> Study:
        names = [name for name, each in self._planned.parameters if each is not None]
        if self.config.search is None:
            raise ValueError("the run has no search")
        run = Path(self.config.paths.run)
        return Study(self.config.search, self._planned, settings_of(self.plan, names), run, rewarded=self._rewarded)

    def _device(self) -> "torch.device":
        """This rank's device; asking for it makes the ranks meet."""
        from transformers import TrainingArguments

        return TrainingArguments(**training_arguments(self.config, self.plan, self._checkpoints)).device

    @property
    def _checkpoints(self) -> Path:
        # Where the training itself caches what it computes of the rows once. Trials save nothing.
        return checkpoint.checkpoints_dir(self.config)

    def _of_rank_zero(self, device: "torch.device", value: Any) -> Any:
        """What rank 0 passes, on every rank."""
        return gather({"value": value if self._decides else None}, device)[0]["value"]

    def _trial(self, device: "torch.device", study: Study | None) -> None:
        trial, values = study.begin() if study else (None, Values())
        number = self._of_rank_zero(device, trial.number if trial else None)
        values = Values.model_validate(self._of_rank_zero(device, values.to_dict()))
        # While it loads, a rank is judged by what its processes do.
        self._report(study, stage="Starting")
        mark = out_of_memory_mark(self.config, number)
        if self._of_rank_zero(device, mark.exists()):
            watch = self._watch(device, trial, [])
            watch.failure = "it ran out of memory"
        else:
            watch = self._run(device, trial, number, values, mark)
        if study is None or trial is None:
            return
        state = TrialState.FAIL if watch.failure else TrialState.PRUNED if watch.pruned else TrialState.COMPLETE
        study.end(trial, state, watch.step, watch.failure)
        logger.info(
            "trial",
            extra={"trial": number, "state": state.name, "steps": watch.step, "settings": values.to_dict()},
        )

    def _watch(self, device: "torch.device", trial: Trial | None, losses: list[float]) -> trials.TrialWatch:
        def decide(step: int, value: float) -> bool:
            if trial is not None:
                trial.report(value, step)
            if step == self._planned.steps_per_trial:
                return True
            losses.clear()
            return bool(self._of_rank_zero(device, trial is not None and not trial.should_prune()))

        steps = evaluation_steps(self._planned.steps_per_trial)
        kind = trials.RewardWatch if self._rewarded else trials.TrialWatch
        return kind(steps, self.health, self.beats, decide, lambda: self._report(None))

    def _run(
        self, device: "torch.device", trial: Trial | None, number: int, values: Values, mark: Path
    ) -> trials.TrialWatch:
        """Train and judge with these settings; losses by batch, or rewards by step, are kept in a file."""
        losses: list[float] = []
        watch = self._watch(device, trial, losses)
        plan = with_settings(self.plan, values).model_copy(update={"total_steps": self._planned.steps_per_trial})
        self.health.take()
        trainer = None
        try:
            trainer = self.make_trainer(plan, self.prepared, self._checkpoints, [watch])
            if self._rewarded:
                trainer.args.logging_steps = 1
            else:
                self._set_validation(trainer, plan, losses)
            self._report(None, stage="Searching")
            trials.run(trainer, watch, may_fail=number > 0 and plan.world_size == 1)
        except RuntimeError as error:
            if number > 0 and memory_ran_out(error):
                # Others wait for this rank: all end, and this trial is not made again.
                mark.touch()
            raise
        finally:
            if trainer is not None:
                self.base.take_back(trainer)
        if isinstance(watch, trials.RewardWatch):
            figures = watch.latest
        else:
            figures = [loss for each in gather({"losses": losses}, device) for loss in each["losses"]]
        if self._decides and not watch.failure and not watch.pruned:
            write_atomic(self._directory / f"losses-{number}.json", choice.encoded(figures))
        return watch

    def _set_validation(self, trainer: RankTrainer, plan: Plan, losses: list[float]) -> None:
        """Evaluate on some of the validation rows, and keep the losses by batch."""
        rows = chosen_rows(len(self.prepared.validation), min(MOST_ROWS, self.config.evaluation.max_samples))
        trainer.set_validation(self.prepared.validation.select(rows))
        trainer.args.per_device_eval_batch_size = _batch_size(len(rows), trainer, plan)
        trainer.eval_losses = losses

    def _figures_of(self, number: int) -> list[float]:
        return choice.decoded((self._directory / f"losses-{number}.json").read_bytes())

    def _report(self, study: Study | None, *, stage: str | None = None) -> None:
        """Report to the launcher: at once where the stage is another one, else once a second."""
        if stage is None and time.monotonic() - self._reported < 1:
            return
        self._reported = time.monotonic()
        update: dict[str, object] = {"stage": stage or self.first.stage, "observed_time": time.time()}
        if study is not None:
            update["search"] = choice.summary(self._planned, study.ended, rewarded=self._rewarded)
        self.first = self.first.model_copy(update=update)
        self.status.write_status(self.first)


def new_base(config: RunConfig) -> LoadedBase:
    """Where the base model of a run's trials is kept."""
    return LoadedBase(adapts=MethodType(config.method.type).adapts)


def _batch_size(rows: int, trainer: RankTrainer, plan: Plan) -> int:
    """Rows of an evaluation's batch on one rank: as many as in training, but not too few batches."""
    most = int(trainer.args.per_device_eval_batch_size)
    return max(1, min(most, rows // (LEAST_BATCHES * plan.world_size)))
