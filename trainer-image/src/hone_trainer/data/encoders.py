"""Which encoder makes the rows of which objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.settings import Objective, TrainOn
from hone_trainer.data.classes import Classes
from hone_trainer.data.encode import Encoder
from hone_trainer.data.labels import LabelEncoder
from hone_trainer.data.pairs import PairEncoder, ScoreEncoder
from hone_trainer.data.prompts import PromptEncoder
from hone_trainer.data.rated import RatedEncoder
from hone_trainer.data.rows import RowEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Wanted:
    """What an encoder is to know of the rows.

    Attributes:
        chat: whether there are conversations among them.
        train_on: which tokens carry loss, for objectives where that is to be chosen.
        classes: the classes, where rows have them.
        room: most tokens of an answer, for objectives whose models write it.
        limit: most tokens of prompt and answer together.
        compares: what needs a reference in every row; None where nothing does.
    """

    chat: bool
    train_on: TrainOn | None = None
    classes: Classes | None = None
    room: int = 0
    limit: int = 0
    compares: str | None = None


def _of_sft(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> Encoder:
    if wanted.train_on is None:
        raise ValueError("nothing says which tokens carry loss")
    return Encoder(tokenizer, wanted.train_on, chat=wanted.chat)


def _of_classification(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> LabelEncoder:
    if wanted.classes is None:
        raise ValueError("the rows have no classes")
    return LabelEncoder(tokenizer, wanted.classes)


def _of_kto(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> RatedEncoder:
    if wanted.classes is None:
        raise ValueError("the rows have no ratings")
    return RatedEncoder(tokenizer, wanted.chat, wanted.classes)


def _of_prompts(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> PromptEncoder:
    return PromptEncoder(
        tokenizer, wanted.chat, room=wanted.room, limit=wanted.limit, train_on="Answers", compares=wanted.compares
    )


ENCODERS: "dict[Objective, Callable[[PreTrainedTokenizerBase, Wanted], RowEncoder]]" = {
    Objective.SFT: _of_sft,
    Objective.CLASSIFICATION: _of_classification,
    Objective.DPO: lambda tokenizer, wanted: PairEncoder(tokenizer, wanted.chat),
    Objective.KTO: _of_kto,
    Objective.ORPO: lambda tokenizer, wanted: PairEncoder(tokenizer, wanted.chat),
    Objective.GRPO: _of_prompts,
    Objective.RLOO: _of_prompts,
    Objective.DISTILLATION: _of_prompts,
    Objective.REWARD: lambda tokenizer, wanted: ScoreEncoder(tokenizer, wanted.chat),
}
