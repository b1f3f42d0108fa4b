"""What the objectives share whose model generates answers to prompts, and learns from them. Imports no library."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hone_trainer.data import encoders
from hone_trainer.data.survey import Survey
from hone_trainer.models.architectures import CHAT
from hone_trainer.objectives.components import ActivationTerms, Components
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.warnings import on_policy_warnings
from hone_trainer.protocol.errors import BadInput

if TYPE_CHECKING:
    from hone_trainer.objectives.trainer import TrainerMixin
    from hone_trainer.training.rank_trainer import RankTrainer

MICRO_BATCHES_AT_ONCE = 8
"""Answers are generated for so many micro-batches at once. Their keys and values are fewer than what autograd keeps of
one: 2 to 8 times the hidden size for a token and layer, which 8 of 2 at most do not exceed by much."""


def on_policy(
    trainer_class: "Callable[[], type[TrainerMixin]]",
    build: "Callable[[Inputs], RankTrainer]",
    scores: str,
    **more: Any,
) -> Components:
    """The components of such an objective.

    Args:
        trainer_class, build: as in `Components`.
        scores: as in `Components`.
        more: further fields of `Components`.
    """
    return Components(
        architecture=CHAT,
        encoder=encoders.of_prompts,
        trainer_class=trainer_class,
        build=build,
        scores=scores,
        activation_terms=ActivationTerms(generated_micro_batches=MICRO_BATCHES_AT_ONCE),
        fixed_order="Lengths of answers are unknown before they are generated.",
        writes_scored_answers=True,
        check_rows=_check_one_kind,
        warnings=on_policy_warnings,
        **more,
    )


def _check_one_kind(surveyed: Survey) -> None:
    """Refuse conversations among plain text: TRL's trainers take all prompts of a step for one or the other."""
    if surveyed.chat and surveyed.plain_text:
        raise BadInput(
            "spec.dataset.train",
            "some prompts are strings and others are lists of messages",
            "Write all prompts as strings, or all as lists of messages.",
        )
