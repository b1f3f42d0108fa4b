"""The Trainer's callbacks: when to save and stop, agreed upon by all ranks, and what is reported to the launcher."""

import logging
import math
import time
from collections import deque
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone.contract.objectives import OBJECTIVES
from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Select
from hone_trainer.protocol.beats import STEP, Beats
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.protocol.verdicts import Diverged
from hone_trainer.training import checkpoint
from hone_trainer.training.collectives import barrier, gather, highest, total
from hone_trainer.training.divergence import Divergence
from hone_trainer.training.learning_rate import set_peak_rate
from hone_trainer.training.validation import EVAL_LOSS, Validation

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Decision(IntEnum):
    """What the ranks do after a step; the highest that any rank requests holds for all."""

    CONTINUE = 0
    SAVE = 1
    SAVE_AND_STOP = 2
    STOP = 3
    """There is no time left to wait for a step that may be saved."""


STOP_PATIENCE = 0.25
"""Share of the grace period for which a stop waits for a streak of high losses to end, so that it can be saved."""


MOST_SKIPPED = 20
"""Steps in a row that may be skipped because their gradients overflow in float16: at first the loss is scaled by
65,536, and by half as much after each of them."""


class StepHealth:
    """This rank's loss in the last step, and whether it was finite. The trainer fills it, `Checkpointing` reads it.

    Args:
        scales_loss: whether a gradient that is not finite is expected now and then: of a loss that was scaled too high.
    """

    def __init__(self, *, scales_loss: bool = False) -> None:
        self._loss: torch.Tensor | float = 0.0
        self._norm: torch.Tensor | float = 0.0
        self._scales_loss, self._skipped = scales_loss, 0

    def add_loss(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's share of the step's loss. It stays on its device: no synchronization."""
        self._loss = self._loss + loss.detach().float()

    def add_norm(self, norm: torch.Tensor | float | None) -> None:
        """Add the gradient's norm, where there is one."""
        if norm is not None:
            self._norm = self._norm + (norm.detach().float() if isinstance(norm, torch.Tensor) else norm)

    def take(self) -> tuple[float, bool]:
        """The loss since the last call, and whether all that was added is finite."""
        loss = torch.as_tensor(self._loss)
        step_loss, norm = torch.stack(
            [loss, torch.as_tensor(self._norm, dtype=loss.dtype, device=loss.device)]
        ).tolist()
        self._loss = self._norm = 0.0
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        was_skipped = self._scales_loss and 0 < self._skipped <= MOST_SKIPPED
        return step_loss, math.isfinite(step_loss) and (math.isfinite(norm) or was_skipped)


class Checkpointing(TrainerCallback):
    """Saves every so many steps or minutes, at the end and when asked to stop; ends a run that has diverged.

    Nothing is saved while the loss is not finite or too high, so the newest checkpoint is from before.

    Args:
        config: where checkpoints go, how many are kept, and the grace period.
        plan: total and checkpoint steps, world size, ZeRO stage and peak learning rate.
        status: where the stop flag is raised.
        health: the last step's loss.
    """

    def __init__(self, config: RunConfig, plan: Plan, status: StatusDir, health: StepHealth) -> None:
        self._directory = checkpoint.checkpoints_dir(config)
        self._run_config = digest_of(config)
        self._keep = config.checkpoint.keep
        self._patience = STOP_PATIENCE * config.checkpoint.grace_period_seconds
        self._plan = plan
        self._status = status
        self._health = health
        self._last_save = time.monotonic()
        # The loss of rewarded answers is around 0 from the start and measures nothing; the distance to a teacher does.
        self._divergence = Divergence(measures=not OBJECTIVES[config.objective].needs.reward)
        self._early_stopping = config.evaluation.early_stopping
        self.validation = Validation()
        """The evaluations of the run up to now."""
        self._exports = self._ends_early = False
        self._overdue = False
        self._doubtful = False
        self._stop_requested_at: float | None = None
        self._began = 0.0
        self.stopped = False
        """Whether the run was stopped before its end."""
        self.cut_evaluation = False
        """Whether the last evaluation was ended by a stop, so that it has no result."""
        self.saved_step: int | None = None
        """Step of the newest checkpoint that this attempt made whole."""
        self.save_seconds: float | None = None
        """How long it took."""
        self.total_save_seconds = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start the clock of `checkpoint.everyMinutes`; after a resume, take the planned rate."""
        self._last_save = time.monotonic()
        self.validation = Validation.of(state.log_history)
        if "lr_scheduler" in kwargs:
            set_peak_rate(kwargs["optimizer"], kwargs["lr_scheduler"], self._plan.learning_rate)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Agree with the other ranks on what follows this step.

        Raises:
            Diverged: on every rank, by the rule of `Divergence`, or where the last step is not finite.
        """
        step, final = state.global_step, state.global_step >= self._plan.total_steps
        self._exports = final
        wish, (loss, finite) = self._wish(step, final), self._health.take()
        wishes = [wish >= decision for decision in (Decision.SAVE, Decision.SAVE_AND_STOP, Decision.STOP)]
        *wished, nonfinite, losses = total([*wishes, not finite, loss if finite else 0.0], args.device)
        decision = sum(count > 0 for count in wished)
        self._divergence.take(losses / self._plan.world_size, finite=not nonfinite)
        verdict = self._divergence.verdict
        if verdict is None and nonfinite and final:
            verdict = "the loss or its gradient was not a finite number in the last step"
        if verdict is not None:
            raise Diverged(f"{verdict}, up to step {step}; the newest checkpoint is from before that")
        # A run must end, with a loss that is high for some steps too.
        doubtful = self._doubtful = bool(self._divergence.nonfinite or (self._divergence.high and not final))
        self._overdue = decision >= Decision.SAVE and doubtful
        if decision >= Decision.SAVE and not doubtful:
            self._begin_save(args, step, control)
        if self._evaluates(step, final) and decision < Decision.SAVE_AND_STOP and not nonfinite:
            control.should_evaluate = True
        wait = decision == Decision.SAVE_AND_STOP and doubtful
        if decision >= Decision.SAVE_AND_STOP and not final and not wait:
            self.stopped = True
            control.should_training_stop = True

    def _wish(self, step: int, final: bool) -> Decision:
        """What this rank requests."""
        if self._status.stop_raised():
            self._stop_requested_at = self._stop_requested_at or time.monotonic()
            waited = time.monotonic() - self._stop_requested_at
            return Decision.STOP if waited >= self._patience else Decision.SAVE_AND_STOP
        return Decision.SAVE if final or self._overdue or self._due(step) else Decision.CONTINUE

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """End an evaluation where any rank is asked to stop; `TrainerMixin.prediction_step` skips what is left."""
        if control.should_evaluate and highest([self._status.stop_raised()], args.device) == [1]:
            control.should_evaluate, self.cut_evaluation = False, True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A save comes after the evaluation of its step; so does a stop that ended it, unless that step is doubtful."""
        self._began = time.monotonic()
        if self.cut_evaluation and not self._doubtful and state.global_step < self._plan.total_steps:
            self._save_now(args, state, control)
            self.stopped = control.should_training_stop = True
        if self.cut_evaluation:
            # It has seen a part of the rows: no later attempt may take it for an evaluation.
            state.log_history[:] = [line for line in state.log_history if not _is_evaluation(line, state.global_step)]
            return
        self.validation = Validation.of(state.log_history)
        if not self._doubtful:
            self._act_on_validation(args, state, control)

    def _act_on_validation(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Save the best model so far, and end a run that has not become better for too long."""
        limit = self._early_stopping.patience if self._early_stopping else None
        better = self._plan.checkpoint_select is Select.BEST and self.validation.improved_at(state.global_step)
        enough = limit is not None and self.validation.since_best >= limit
        better, enough = (bool(vote) for vote in highest([better, enough], args.device))
        self._ends_early = enough and state.global_step < self._plan.total_steps
        if self._ends_early:
            control.should_training_stop = True
        if better or self._ends_early:
            self._exports = True
            self._save_now(args, state, control)

    def exports(self) -> bool:
        """Whether the checkpoint of this step may be exported: the last one, or the best one up to now."""
        return self._exports

    def _save_now(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if not control.should_save:
            self._begin_save(args, state.global_step, control)

    def _begin_save(self, args: TrainingArguments, step: int, control: TrainerControl) -> None:
        self._began = time.monotonic()
        if args.process_index == 0:
            checkpoint.discard_unusable(checkpoint.checkpoint_dir(self._directory, step), self._run_config)
        barrier()
        control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Mark the checkpoint whole once every rank has written its part, then drop the oldest."""
        path = checkpoint.checkpoint_dir(self._directory, state.global_step)
        with checkpoint.saving(path):
            written = _written(path, args)
        if args.process_index == 0:
            with checkpoint.saving(path):
                checkpoint.complete(
                    path,
                    written,
                    step=state.global_step,
                    world_size=self._plan.world_size,
                    zero_stage=self._plan.zero_stage,
                    final=self._ends_early or state.global_step >= self._plan.total_steps,
                    # Under DeepSpeed, only what may be exported has the whole weights.
                    eval_loss=self.validation.loss_at(state.global_step) if self._exports else None,
                    run_config=self._run_config,
                )
            checkpoint.prune(self._directory, self._keep, self._run_config, self._plan.checkpoint_select)
        # No rank may end before the mark is written: torchrun ends the others when one does.
        barrier()
        self.saved_step = state.global_step
        self._last_save = time.monotonic()
        self.save_seconds = self._last_save - self._began
        self.total_save_seconds += self.save_seconds
        logger.info("checkpoint", extra={"step": state.global_step, "seconds": round(self.save_seconds, 2)})

    def _evaluates(self, step: int, final: bool) -> bool:
        every = self._plan.evaluation_every_steps
        return every is not None and (final or step % every == 0)

    def _due(self, step: int) -> bool:
        # The ranks' clocks may differ: the first that requests a save decides for all.
        plan, since = self._plan, time.monotonic() - self._last_save
        if plan.checkpoint_every_minutes is not None:
            return since >= 60 * plan.checkpoint_every_minutes
        if plan.checkpoint_every_steps is None or step % plan.checkpoint_every_steps:
            return False
        return since >= (plan.checkpoint_min_seconds or 0)


def _is_evaluation(line: dict[str, float], step: int) -> bool:
    return EVAL_LOSS in line and line["step"] == step


def _written(path: Path, args: TrainingArguments) -> checkpoint.Written:
    """What all ranks have written to a checkpoint and flushed to the disk."""
    sizes = _merged(gather(checkpoint.sync_part(path, args.process_index), args.device))
    if sum(sizes.values()) > checkpoint.MAX_HASHED_BYTES:
        return checkpoint.Written(sizes, None)
    digests = checkpoint.digests_of_part(path, args.process_index)
    return checkpoint.Written(sizes, _merged(gather(digests, args.device)))


def _merged(parts: list[dict[str, T]]) -> dict[str, T]:
    return {name: value for part in parts for name, value in part.items()}


class Reporting(TrainerCallback):
    """Reports this rank's state to the launcher about once a second, and logs rank 0's figures as often.

    Args:
        status: where to report it.
        first: what is known before the first step.
        saves: the checkpoint callback; it must come before this one.
        beats: the rank's heartbeat.
    """

    def __init__(self, status: StatusDir, first: RankStatus, saves: Checkpointing, beats: Beats) -> None:
        self._status = status
        self._now = first
        self._saves = saves
        self._beats = beats
        self._steps: deque[tuple[float, int]] = deque(maxlen=21)
        self._logged: tuple[float, int] | None = None
        self._written = 0.0
        self._lined = 0.0
        self._evaluation_began = 0.0
        self._evaluation_seconds = 0.0
        self._tokens_before = 0
        self._training_began = 0.0

    @property
    def step(self) -> int:
        """Last step that was finished."""
        return self._now.step

    @property
    def now(self) -> RankStatus:
        """This rank's state."""
        return self._now

    @property
    def training_seconds(self) -> float:
        """Seconds of training in this attempt, without saves and evaluations."""
        return self._clock() - self._training_began

    def report(self, **changes: object) -> None:
        """Change the status and write it at once."""
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        self._now = self._now.model_copy(update={**changes, "observed_time": time.time(), "gpu_peak_bytes": peak})
        self._status.write_status(self._now)
        self._written = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start the clocks."""
        self._training_began = self._clock()
        self._steps.append((self._training_began, state.global_step))
        self._logged = (self._training_began, 0)
        self._tokens_before = int(state.num_input_tokens_seen or 0)
        self.report(stage="Training", step=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Count the step."""
        self._beats(STEP)
        self._steps.append((self._clock(), state.global_step))
        (began, first), (ended, last) = self._steps[0], self._steps[-1]
        self._now = self._now.model_copy(
            update={
                "step": state.global_step,
                "epoch": state.epoch or 0.0,
                "seconds_per_step": (ended - began) / max(1, last - first),
                "stage": _stage(control),
            }
        )
        self._evaluation_began = time.monotonic()
        if self._now.stage != "Training" or time.monotonic() - self._written >= 1:
            self.report()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Take over what the Trainer has gathered from all ranks."""
        if not logs or "loss" not in logs:
            return
        changes: dict[str, object] = {name: logs.get(name) for name in ("loss", "reward", "learning_rate", "grad_norm")}
        # What the Trainer itself counts, a checkpoint remembers.
        counted = int(logs.get("num_tokens") or logs.get("num_input_tokens_seen") or 0)
        tokens, now = counted - self._tokens_before, self._clock()
        if self._logged is not None and now > self._logged[0]:
            changes["tokens_per_second"] = (tokens - self._logged[1]) / (now - self._logged[0])
        self._logged = (now, tokens)
        self._now = self._now.model_copy(update={**changes, "tokens": tokens})
        # A clock of its own: on_step_end comes just before and would always win.
        if time.monotonic() - self._lined >= 1:
            self._lined = time.monotonic()
            self.report()
            if args.process_index == 0:
                logger.info(
                    "step",
                    extra={
                        "step": state.global_step,
                        "totalSteps": self._now.total_steps,
                        **{key: round(float(value), 6) for key, value in changes.items() if value is not None},  # type: ignore[arg-type]
                    },
                )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Report the loss on the validation rows."""
        self._evaluation_seconds += time.monotonic() - self._evaluation_began
        stage = "Saving" if control.should_save else "Training"
        if self._saves.cut_evaluation:
            self.report(stage=stage)
            return
        loss = (metrics or {}).get(EVAL_LOSS)
        best, best_loss = self._saves.validation.best or (None, None)
        warning = self._saves.validation.warning
        self.report(stage=stage, eval_loss=loss, best_step=best, best_eval_loss=best_loss, validation_warning=warning)
        if warning and args.process_index == 0:
            logger.warning("validation", extra={"words": warning})
        if args.process_index == 0:
            logger.info("evaluation", extra={"step": state.global_step, "evalLoss": loss})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Report the new checkpoint."""
        self._beats(None)
        self.report(
            stage="Training", checkpoint_step=self._saves.saved_step, checkpoint_seconds=self._saves.save_seconds
        )

    def _clock(self) -> float:
        # Time spent on saving and evaluating is no training time: it would spoil the expected end.
        return time.monotonic() - self._saves.total_save_seconds - self._evaluation_seconds


def _stage(control: TrainerControl) -> str:
    """What follows a step; an evaluation comes before a save."""
    if control.should_evaluate:
        return "Evaluating"
    return "Saving" if control.should_save else "Training"
