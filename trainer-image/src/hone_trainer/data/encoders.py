"""One function for each kind of encoder, which builds it from the tokenizer and the options."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.contract.settings import TrainOn
from hone_trainer.data.classes import Classes
from hone_trainer.data.encode import Encoder
from hone_trainer.data.labels import LabelEncoder, LabelsEncoder
from hone_trainer.data.pairs import PairEncoder, ScoreEncoder
from hone_trainer.data.prompts import PromptEncoder
from hone_trainer.data.rated import RatedEncoder
from hone_trainer.data.raw_text import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncoderOptions:
    """What an encoder needs to know of rows and objective.

    Attributes:
        chat: whether there are conversations among them.
        train_on: which tokens carry loss; None for objectives without this choice.
        classes: the classes; None for formats without classes.
        room: most tokens of an answer, for objectives whose model writes the answers.
        limit: most tokens of prompt and answer together, for the same objectives.
        compares: the reward function that needs a reference in every row; None if no function does.
        raw_text: whether the rows are texts, all of which is learned.
    """

    chat: bool
    train_on: TrainOn | None = None
    classes: Classes | None = None
    room: int = 0
    limit: int = 0
    compares: str | None = None
    raw_text: bool = False


def of_answers(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> Encoder | TextEncoder:
    """For what is learned token by token."""
    if options.raw_text:
        return TextEncoder(tokenizer)
    if options.train_on is None:
        raise ValueError("train_on is missing: it says which tokens carry loss")
    return Encoder(tokenizer, options.train_on, chat=options.chat)


def of_classes(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> LabelEncoder:
    """For texts with their classes."""
    if options.classes is None:
        raise ValueError("the rows have no classes")
    encoder = LabelsEncoder if options.classes.several else LabelEncoder
    return encoder(tokenizer, options.classes)


def of_ratings(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> RatedEncoder:
    """For answers that were rated."""
    if options.classes is None:
        raise ValueError("the rows have no ratings")
    return RatedEncoder(tokenizer, options.chat, options.classes)


def of_prompts(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> PromptEncoder:
    """For prompts that the model answers itself."""
    return PromptEncoder(
        tokenizer, options.chat, room=options.room, limit=options.limit, train_on="Answers", compares=options.compares
    )


def of_pairs(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> PairEncoder:
    """For a prompt and two answers."""
    return PairEncoder(tokenizer, options.chat)


def of_scored_pairs(tokenizer: "PreTrainedTokenizerBase", options: EncoderOptions) -> ScoreEncoder:
    """For two answers, each with the prompt."""
    return ScoreEncoder(tokenizer, options.chat)
