"""What the tuned model has forgotten: its answers to general questions, next to those of its base.

loss           mean negative log-likelihood of the right answer's token, in nats
rightAnswers   share of answers that contain the right answer as whole words, whatever their case and spacing
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hone.contract.results import RetentionSummary
from hone.contract.runconfig import RunConfig
from hone.contract.settings import RetentionSet, TrainOn
from hone_trainer.data.encode import Encoder
from hone_trainer.data.general import VERSION, Question, questions
from hone_trainer.data.sample import Sample
from hone_trainer.data.splits import normalized
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores import rows as scoring
from hone_trainer.scores.answers import both
from hone_trainer.scores.figures import RowFigures, score

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

LOSS, RIGHT = "loss", "rightAnswers"
ANSWER_TOKENS = 32
"""Most tokens of an answer: the longest right one is a small JSON object."""


def evaluate(config: RunConfig, planned: PlanFile, directory: Path, dtype: "torch.dtype") -> RetentionSummary:
    """Score the exported model against its base; arguments as in `scores.answers.evaluate`."""
    general = questions()
    rows = encoded(load_tokenizer(directory), general)
    # The base's figures are cached by these rows and not by those of the run.
    digest = f"{RetentionSet.GENERAL}-{VERSION}-{planned.dataset.digest}"
    own = planned.model_copy(update={"dataset": planned.dataset.model_copy(update={"digest": digest})})
    base, tuned, _ = both(config, own, rows, directory, dtype, scoring.score_rows, ANSWER_TOKENS)
    return compare(general, base, tuned)


def encoded(tokenizer: "PreTrainedTokenizerBase", general: list[Question]) -> "Dataset":
    """The questions as test rows: as conversations where the tokenizer has a chat template that takes them, else as
    text."""
    if tokenizer.chat_template is None:
        return _encoded(tokenizer, general, chat=False)
    try:
        return _encoded(tokenizer, general, chat=True)
    except (BadInput, RowFault):
        # Such as one that needs a system message: the run's own rows may have one, or be no conversations.
        return _encoded(tokenizer, general, chat=False)


def _encoded(tokenizer: "PreTrainedTokenizerBase", general: list[Question], *, chat: bool) -> "Dataset":
    from datasets import Dataset

    encoder = Encoder(tokenizer, TrainOn.COMPLETION, chat=chat)
    rows = []
    for question in general:
        sample = _sample(question, chat)
        ids, text = encoder.prompt(sample)
        columns = encoder.encode(sample).columns()
        rows.append({**columns, "prompt_ids": ids, "reference": question.answer, "prompt": text})
    return Dataset.from_list(rows)


def compare(general: list[Question], base: scoring.RowScores, tuned: scoring.RowScores) -> RetentionSummary:
    """The scores, the loss first, and the loss by skill.

    Args:
        general: the questions.
        base, tuned: both models' figures for them.
    """
    losses = RowFigures(LOSS, np.array(base.losses), np.array(tuned.losses), higher_is_better=False)
    right = RowFigures(RIGHT, _right(base.answers, general), _right(tuned.answers, general))
    skill = np.array([question.skill for question in general])
    by_skill = {name: score(losses.at(skill == name)) for name in dict.fromkeys(skill.tolist())}
    return RetentionSummary(
        set=RetentionSet.GENERAL,
        scores=[one for figures in (losses, right) if (one := score(figures)) is not None],
        skills={name: one.improvement for name, one in by_skill.items() if one is not None},
    )


def _sample(question: Question, chat: bool) -> Sample:
    if not chat:
        return Sample(prompt=f"{question.prompt}\n", completion=question.answer)
    turns = ({"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.answer})
    return Sample(messages=turns, completion_start=1)


def _right(answers: list[str], general: list[Question]) -> np.ndarray:
    pairs = zip(answers, general, strict=True)
    return np.array([_contains(normalized(answer), normalized(each.answer)) for answer, each in pairs], dtype=float)


def _contains(answer: str, reference: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", answer) is not None
