"""The objectives: what the trainer has for each, in one table, beside the module here that builds its trainer.

To add one, write a module here that is named like it, with a `build` function, and a row of `PARTS`. No module is read
for the table's sake: each loads the libraries that it needs.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.settings import Objective
from hone_trainer.data import encoders
from hone_trainer.data.encoders import EncoderOptions
from hone_trainer.models.architectures import CHAT, CLASSIFIER, SCORER, Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.data.rows import RowEncoder
    from hone_trainer.objectives.inputs import Inputs
    from hone_trainer.scores.evaluated import Evaluated
    from hone_trainer.training.rank_trainer import RankTrainer

MICRO_BATCHES_AT_ONCE = 8
"""Answers are written for so many micro-batches at once. Their keys and values are fewer than what autograd keeps of
one: 2 to 8 times the hidden size for a token and layer there are, which 8 of 2 at most do not exceed by much."""


@dataclass(frozen=True)
class Parts:
    """What the trainer has for an objective.

    Attributes:
        architecture: the kind of model that is trained.
        encoder: what makes the rows of prepared data.
        scores: the function that scores the result, as module:function of `hone_trainer.scores`.
    """

    architecture: Architecture
    encoder: "Callable[[PreTrainedTokenizerBase, EncoderOptions], RowEncoder]"
    scores: str


PARTS: Mapping[Objective, Parts] = {
    Objective.SFT: Parts(CHAT, encoders.of_answers, "answers:evaluate"),
    Objective.CLASSIFICATION: Parts(CLASSIFIER, encoders.of_classes, "classes:evaluate"),
    Objective.REWARD: Parts(SCORER, encoders.of_scored_pairs, "pairs:evaluate"),
    Objective.DPO: Parts(CHAT, encoders.of_pairs, "preferences:evaluate_pairs"),
    Objective.KTO: Parts(CHAT, encoders.of_ratings, "preferences:evaluate_rated"),
    Objective.ORPO: Parts(CHAT, encoders.of_pairs, "preferences:evaluate_pairs"),
    Objective.GRPO: Parts(CHAT, encoders.of_prompts, "rewards:evaluate"),
    Objective.RLOO: Parts(CHAT, encoders.of_prompts, "rewards:evaluate"),
    Objective.DISTILLATION: Parts(CHAT, encoders.of_prompts, "divergences:evaluate"),
}


def builder(objective: Objective) -> "Callable[[Inputs], RankTrainer]":
    """What builds an objective's trainer, TRL's or transformers' own."""
    build: Callable[[Inputs], RankTrainer] = pkgutil.resolve_name(f"{__name__}.{objective.value.lower()}:build")
    return build


def scorer(objective: Objective) -> "Callable[..., Evaluated]":
    """What scores base and tuned model on the test split, each figure with its interval."""
    evaluate: Callable[..., Evaluated] = pkgutil.resolve_name(f"hone_trainer.scores.{PARTS[objective].scores}")
    return evaluate
