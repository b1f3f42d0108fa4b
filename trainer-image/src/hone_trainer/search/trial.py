"""One trial on a rank: it trains for some steps, is evaluated at some steps, and ends early where rank 0 decides so."""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_trainer.protocol.beats import STEP, Beats
from hone_trainer.search.base import memory_ran_out
from hone_trainer.training.callbacks import StepHealth
from hone_trainer.training.collectives import total
from hone_trainer.training.rank_trainer import RankTrainer
from hone_trainer.training.validation import EVAL_LOSS

Decide = Callable[[int, float], bool]
"""(step, loss on the validation rows, or reward) -> whether the trial continues; the same on every rank."""


class TrialWatch(TrainerCallback):
    """Evaluates a trial at some steps, and ends it where that is decided, or where its loss is not finite.

    Args:
        evaluate_at: the steps after which it is evaluated.
        health: the last step's loss.
        beats: the rank's heartbeat.
        decide: whether it continues.
        report: called after each step.
    """

    rewarded = False
    """Whether it is judged by its reward."""

    def __init__(
        self, evaluate_at: list[int], health: StepHealth, beats: Beats, decide: Decide, report: Callable[[], None]
    ) -> None:
        self._evaluate_at, self._health, self._beats = evaluate_at, health, beats
        self._decide, self._report = decide, report
        self.failure: str | None = None
        """Why the trial has failed."""
        self.pruned = False
        self.step = 0
        """Steps that it has made."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Count the step; agree on whether its loss was finite, and evaluate where that is due."""
        self._beats(STEP)
        self.step = state.global_step
        self._report()
        _, finite = self._health.take()
        if total([not finite], args.device)[0]:
            self._fail("its loss was not finite", control)
        elif state.global_step in self._evaluate_at and not self.rewarded:
            control.should_evaluate = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Decide by the loss on the validation rows whether the trial continues."""
        self._judge("loss on the validation rows", (metrics or {}).get(EVAL_LOSS, math.nan), state, control)

    def _judge(self, name: str, value: float, state: TrainerState, control: TrainerControl) -> None:
        if not math.isfinite(value):
            self._fail(f"its {name} was not finite", control)
        elif not self._decide(state.global_step, value):
            # At the last step it has ended anyway: no steps are saved.
            self.pruned = state.global_step < self._evaluate_at[-1]
            control.should_training_stop = True

    def _fail(self, reason: str, control: TrainerControl) -> None:
        self.failure = reason
        control.should_training_stop = True


class RewardWatch(TrialWatch):
    """Judges a trial by the mean reward of the answers in the latest half of its steps, which costs no evaluation:
    the model has written them in training, and every trial writes answers to the same prompts."""

    rewarded = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rewards: list[float] = []
        """Mean reward of each step's answers, over all ranks."""

    @property
    def latest(self) -> list[float]:
        """Those of the latest half of the steps."""
        return self.rewards[len(self.rewards) // 2 :]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Add a step's reward, and decide where that is due. TRL gathers it: every rank logs the same."""
        if not logs or "reward" not in logs:
            return
        self.rewards.append(logs["reward"])
        if state.global_step in self._evaluate_at and not self.failure:
            self._judge("reward", sum(self.latest) / len(self.latest), state, control)


def run(trainer: RankTrainer, watch: TrialWatch, may_fail: bool) -> None:
    """Run a trial to its end.

    Args:
        trainer: of the trial.
        watch: its callback.
        may_fail: whether running out of memory is the trial's own failure and not the run's.
    """
    try:
        trainer.train()
    except RuntimeError as error:
        if not (may_fail and memory_ran_out(error)):
            raise
        watch.failure = "it ran out of memory"
