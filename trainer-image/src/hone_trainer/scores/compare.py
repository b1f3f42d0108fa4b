"""From two models' figures per row to scores: which metric leads, and by how much the tuned model is better."""

from statistics import median

import numpy as np

from hone.contract.results import EvaluationSummary, Score
from hone_trainer.data.reasoning import visible
from hone_trainer.scores.calls import TOOL_CALLS, score_calls
from hone_trainer.scores.intervals import mean, paired_difference, proportion
from hone_trainer.scores.rows import RowScores

EXACT_MATCH = "exactMatch"
LOSS = "loss"
SHORT_REFERENCE_TOKENS = 16
"""References are short when half of them have no more tokens than this: labels, names, figures. Of longer texts there
are many good ones, so that an exact match says little; then the loss leads."""

_NO_ROWS = "The test split has no rows, so nothing was measured."


def compare(
    base: RowScores, tuned: RowScores, references: list[str], reference_tokens: list[int]
) -> tuple[EvaluationSummary, list[str]]:
    """The scores, the main one first, and notes on them in sentences.

    Args:
        base, tuned: figures of the same rows.
        references: the right answers.
        reference_tokens: tokens of each reference.
    """
    if not references:
        return EvaluationSummary(scores=[]), [_NO_ROWS]
    scores = [_exact_match(base, tuned, references), _loss(base, tuned)]
    middle = median(reference_tokens)
    short = middle <= SHORT_REFERENCE_TOKENS
    main, why = (EXACT_MATCH, "short") if short else (LOSS, "long")
    notes = [f"{main} is the main metric: the references are {why} (half of them have {middle:g} tokens or fewer)."]
    if of_calls := score_calls(base.answers, tuned.answers, references):
        score, how_far = of_calls
        scores.append(score)
        notes.append(how_far)
        if 2 * score.samples >= len(references):
            main = TOOL_CALLS
            notes[0] = f"{main} is the main metric: {score.samples} of {len(references)} references call tools."
    scores.sort(key=lambda score: score.metric != main)
    return EvaluationSummary(scores=scores), notes


def compare_losses(base: RowScores, tuned: RowScores) -> tuple[EvaluationSummary, list[str]]:
    """The score of texts without answers, and a note on it; arguments as of `compare`."""
    if not base.losses:
        return EvaluationSummary(scores=[]), [_NO_ROWS]
    return EvaluationSummary(scores=[_loss(base, tuned)]), [
        "loss is the only metric: the rows are texts, without answers that could be compared."
    ]


def endless(base: RowScores, tuned: RowScores, max_new_tokens: int) -> list[str]:
    """A note on answers of the tuned model that did not end by themselves; none if all did."""
    if not tuned.unfinished:
        return []
    return [
        f"{tuned.unfinished} of {len(tuned.answers)} answers of the tuned model ({base.unfinished} of the base model) "
        f"did not end within {max_new_tokens} tokens."
    ]


def hits(scores: RowScores, references: list[str]) -> np.ndarray:
    """Whether each answer is the reference, reasoning and white space at both ends aside."""
    pairs = zip(scores.answers, references, strict=True)
    return np.array([visible(answer) == visible(reference) for answer, reference in pairs], dtype=bool)


def _exact_match(base: RowScores, tuned: RowScores, references: list[str]) -> Score:
    of_base, of_tuned = hits(base, references), hits(tuned, references)
    return Score(
        metric=EXACT_MATCH,
        higher_is_better=True,
        samples=len(references),
        base=proportion(of_base),
        tuned=proportion(of_tuned),
        improvement=paired_difference(of_base, of_tuned),
    )


def _loss(base: RowScores, tuned: RowScores) -> Score:
    of_base, of_tuned = np.array(base.losses), np.array(tuned.losses)
    return Score(
        metric=LOSS,
        higher_is_better=False,
        samples=len(of_base),
        base=mean(of_base),
        tuned=mean(of_tuned),
        improvement=mean(of_base - of_tuned),
    )
