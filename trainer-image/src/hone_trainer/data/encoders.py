"""What makes an encoder of each kind from what is known of the rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.settings import TrainOn
from hone_trainer.data.classes import Classes
from hone_trainer.data.encode import Encoder
from hone_trainer.data.labels import LabelEncoder
from hone_trainer.data.pairs import PairEncoder, ScoreEncoder
from hone_trainer.data.prompts import PromptEncoder
from hone_trainer.data.rated import RatedEncoder

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


def of_answers(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> Encoder:
    """For what is learned token by token."""
    if wanted.train_on is None:
        raise ValueError("nothing says which tokens carry loss")
    return Encoder(tokenizer, wanted.train_on, chat=wanted.chat)


def of_classes(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> LabelEncoder:
    """For texts with their classes."""
    if wanted.classes is None:
        raise ValueError("the rows have no classes")
    return LabelEncoder(tokenizer, wanted.classes)


def of_ratings(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> RatedEncoder:
    """For answers that were rated."""
    if wanted.classes is None:
        raise ValueError("the rows have no ratings")
    return RatedEncoder(tokenizer, wanted.chat, wanted.classes)


def of_prompts(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> PromptEncoder:
    """For prompts that the model answers itself."""
    return PromptEncoder(
        tokenizer, wanted.chat, room=wanted.room, limit=wanted.limit, train_on="Answers", compares=wanted.compares
    )


def of_pairs(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> PairEncoder:
    """For a prompt and two answers."""
    return PairEncoder(tokenizer, wanted.chat)


def of_scored_pairs(tokenizer: "PreTrainedTokenizerBase", wanted: Wanted) -> ScoreEncoder:
    """For two answers, each with the prompt."""
    return ScoreEncoder(tokenizer, wanted.chat)
