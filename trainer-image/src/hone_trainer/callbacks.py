"""The Trainer's callbacks: when to save and stop, agreed upon by all ranks, and what the launcher is told."""

import logging
import time
from collections import deque
from enum import IntEnum

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer import checkpoint
from hone_trainer.agreement import barrier, highest
from hone_trainer.runconfig import digest_of
from hone_trainer.status import RankStatus, StatusDir
from hone_trainer.verdicts import Diverged

logger = logging.getLogger(__name__)

MAX_NONFINITE_STEPS = 3
"""Steps in a row with a loss or gradient that is not finite, after which the run ends as diverged."""


class Decision(IntEnum):
    """What the ranks do after a step; the highest that any rank asks for holds for all."""

    GO_ON = 0
    SAVE = 1
    SAVE_AND_STOP = 2


class StepHealth:
    """Whether this rank's last step was finite. The objective's trainer feeds it, `Checkpointing` asks it."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0

    def add(self, value: torch.Tensor | float | None) -> None:
        """Take in a loss of a micro-batch, or the step's gradient norm. It stays on its device: no synchronization."""
        if value is not None:
            self._sum = self._sum + (value.detach().float() if isinstance(value, torch.Tensor) else value)

    def take(self) -> bool:
        """Whether all that was taken in since the last call is finite."""
        total, self._sum = self._sum, 0.0
        return bool(torch.isfinite(torch.as_tensor(total)).item())


class Checkpointing(TrainerCallback):
    """Saves every so many steps or minutes, at the end and when asked to stop; ends a run whose loss is no number.

    Args:
        config: where checkpoints go, and how many are kept.
        plan: total and checkpoint steps, world size and ZeRO stage.
        status: where the stop flag is raised.
        health: whether the last step was finite.
    """

    def __init__(self, config: RunConfig, plan: Plan, status: StatusDir, health: StepHealth) -> None:
        self._directory = checkpoint.checkpoints_dir(config)
        self._run_config = digest_of(config)
        self._keep = config.checkpoint.keep
        self._plan = plan
        self._status = status
        self._health = health
        self._last_save = time.monotonic()
        self._nonfinite = 0
        self._began = 0.0
        self.stopped = False
        """Whether the run was stopped before its end."""
        self.saved_step: int | None = None
        """Step of the newest checkpoint that this attempt made whole."""
        self.save_seconds: float | None = None
        """How long it took."""
        self.total_save_seconds = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start the clock of `checkpoint.everyMinutes`."""
        self._last_save = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Agree with the other ranks on what follows this step.

        Raises:
            Diverged: on every rank, after `MAX_NONFINITE_STEPS`, or at the last step.
        """
        step, final = state.global_step, state.global_step >= self._plan.total_steps
        wanted = Decision.GO_ON
        if final or self._due(step):
            wanted = Decision.SAVE
        if self._status.stop_raised():
            wanted = Decision.SAVE_AND_STOP
        decision, nonfinite = highest([wanted, not self._health.take()], args.device)
        self._nonfinite = self._nonfinite + 1 if nonfinite else 0
        if self._nonfinite >= MAX_NONFINITE_STEPS or (nonfinite and final):
            raise Diverged(
                f"the loss or its gradient was not a finite number for {self._nonfinite} steps in a row, up to step "
                f"{step}; the newest checkpoint is from before"
            )
        if decision >= Decision.SAVE and not nonfinite:
            self._began = time.monotonic()
            if args.process_index == 0:
                checkpoint.discard_unusable(checkpoint.checkpoint_dir(self._directory, step), self._run_config)
            barrier()
            control.should_save = True
        if decision == Decision.SAVE_AND_STOP and not final:
            self.stopped = True
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Mark the checkpoint whole once every rank has written its part, then drop the oldest."""
        barrier()
        if args.process_index == 0:
            checkpoint.complete(
                checkpoint.checkpoint_dir(self._directory, state.global_step),
                step=state.global_step,
                world_size=self._plan.world_size,
                zero_stage=self._plan.zero_stage,
                final=state.global_step >= self._plan.total_steps,
                run_config=self._run_config,
            )
            checkpoint.prune(self._directory, self._keep, self._run_config)
        # No rank may end before the mark is written: torchrun ends the others when one does.
        barrier()
        self.saved_step = state.global_step
        self._last_save = time.monotonic()
        self.save_seconds = self._last_save - self._began
        self.total_save_seconds += self.save_seconds
        logger.info("checkpoint", extra={"step": state.global_step, "seconds": round(self.save_seconds, 2)})

    def _due(self, step: int) -> bool:
        # By the clock the ranks may differ; the first one that asks decides for all.
        plan = self._plan
        if plan.checkpoint_every_minutes is not None:
            return time.monotonic() - self._last_save >= 60 * plan.checkpoint_every_minutes
        return plan.checkpoint_every_steps is not None and step % plan.checkpoint_every_steps == 0


class Reporting(TrainerCallback):
    """Tells the launcher where this rank stands, about once a second, and logs rank 0's figures as often.

    Args:
        status: where to tell it.
        first: what is known before the first step.
        saves: the checkpoint callback; it must come before this one.
    """

    def __init__(self, status: StatusDir, first: RankStatus, saves: Checkpointing) -> None:
        self._status = status
        self._now = first
        self._saves = saves
        self._steps: deque[tuple[float, int]] = deque(maxlen=21)
        self._logged: tuple[float, int] | None = None
        self._written = 0.0
        self._lined = 0.0

    @property
    def step(self) -> int:
        """Last step that was finished."""
        return self._now.step

    def tell(self, **changes: object) -> None:
        """Change the status and write it at once."""
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        self._now = self._now.model_copy(update={**changes, "observed_time": time.time(), "gpu_peak_bytes": peak})
        self._status.write_status(self._now)
        self._written = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start the clocks."""
        self._steps.append((self._clock(), state.global_step))
        self._logged = (self._clock(), 0)
        self.tell(stage="Training", step=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Count the step."""
        self._steps.append((self._clock(), state.global_step))
        (began, first), (ended, last) = self._steps[0], self._steps[-1]
        self._now = self._now.model_copy(
            update={
                "step": state.global_step,
                "epoch": state.epoch or 0.0,
                "seconds_per_step": (ended - began) / max(1, last - first),
                "stage": "Saving" if control.should_save else "Training",
            }
        )
        if control.should_save or time.monotonic() - self._written >= 1:
            self.tell()

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
        changes: dict[str, object] = {name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")}
        tokens, now = int(logs.get("num_tokens", 0)), self._clock()
        if self._logged is not None and now > self._logged[0]:
            changes["tokens_per_second"] = (tokens - self._logged[1]) / (now - self._logged[0])
        self._logged = (now, tokens)
        self._now = self._now.model_copy(update={**changes, "tokens": tokens})
        # A clock of its own: on_step_end comes just before and would always win.
        if time.monotonic() - self._lined >= 1:
            self._lined = time.monotonic()
            self.tell()
            if args.process_index == 0:
                logger.info(
                    "step",
                    extra={
                        "step": state.global_step,
                        "totalSteps": self._now.total_steps,
                        **{key: round(float(value), 6) for key, value in changes.items() if value is not None},  # type: ignore[arg-type]
                    },
                )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Tell of the new checkpoint."""
        self.tell(stage="Training", checkpoint_step=self._saves.saved_step, checkpoint_seconds=self._saves.save_seconds)

    def _clock(self) -> float:
        # Time spent on saving is no training time: it would spoil the expected end.
        return time.monotonic() - self._saves.total_save_seconds
