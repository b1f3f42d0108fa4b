"""The record of an objective in the trainer: the kind of model, the encoder, and the functions that the steps call."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.runconfig import RunConfig
from hone_trainer.data.encoders import EncoderOptions
from hone_trainer.data.survey import Survey
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.facts import ModelFacts
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.warnings import WarningInputs, warnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.data.rows import RowEncoder
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.scores.evaluated import Evaluated
    from hone_trainer.training.rank_trainer import RankTrainer


@dataclass(frozen=True)
class ActivationTerms:
    """What the estimate of a step's memory must know of the loss.

    Attributes:
        sequences: sequences of one row in a forward pass: 2 for pairs.
        full_logits: whether the loss materializes full logits, [tokens, vocabulary], instead of tiles of them.
        generated_micro_batches: the model generates answers for at most so many micro-batches at once, and caches
            their keys and values; 0: it generates none.
    """

    sequences: int = 1
    full_logits: bool = False
    generated_micro_batches: int = 0


def _any_rows(surveyed: Survey) -> None:
    """Accept all rows that the format's reader accepts."""


def _no_reward_model(config: RunConfig, chat: bool) -> int:
    return 0


def _no_teacher(config: RunConfig, base: ModelFacts, length: int) -> int:
    return 0


@dataclass(frozen=True)
class Components:
    """What the trainer has for an objective. Building it imports no library; its functions do.

    Attributes:
        architecture: the kind of model that is trained.
        encoder: what turns the rows into token ids.
        trainer_class: the class of its trainer, TRL's or transformers' own with Hone's additions.
        build: the trainer for prepared rows.
        scores: the function that scores the result, as module:function of `hone_trainer.scores`.
        activation_terms: what the memory estimate must know of the loss.
        fixed_order: why the rows of a step may not be sorted by length; None: they may.
        writes_scored_answers: whether base and tuned model write an answer to each test row when they are scored.
        check_rows: refuses rows that the trainer cannot mix.
        reward_model: (config, whether prompts are conversations) -> parameters of the reward model, which it checks
            before data are tokenized; 0 without one.
        teacher: (config, base model, tokens of the longest row) -> parameters of the teacher, which it checks; 0
            without one.
        warnings: what a user should know of the rows.
    """

    architecture: Architecture
    encoder: "Callable[[PreTrainedTokenizerBase, EncoderOptions], RowEncoder]"
    trainer_class: "Callable[[], type[TrainerMixin]]"
    build: "Callable[[Inputs], RankTrainer]"
    scores: str
    activation_terms: ActivationTerms = ActivationTerms()
    fixed_order: str | None = None
    writes_scored_answers: bool = False
    check_rows: Callable[[Survey], None] = _any_rows
    reward_model: Callable[[RunConfig, bool], int] = _no_reward_model
    teacher: Callable[[RunConfig, ModelFacts, int], int] = _no_teacher
    warnings: Callable[[WarningInputs], list[str]] = warnings

    @property
    def evaluate(self) -> "Callable[..., Evaluated]":
        """What scores base and tuned model on the test split, each figure with its interval."""
        function: Callable[..., Evaluated] = pkgutil.resolve_name(f"hone_trainer.scores.{self.scores}")
        return function
