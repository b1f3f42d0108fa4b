"""From two models' losses and answers to scores: which metric leads, and by how much the tuned model is better."""

from collections.abc import Sequence

import numpy as np

from hone.contract.metrics import METRICS, Metric
from hone.contract.results import EvaluationSummary, Score
from hone_trainer.scores.calls import how_far
from hone_trainer.scores.choose import choose
from hone_trainer.scores.figures import RowFigures, score
from hone_trainer.scores.rows import RowScores
from hone_trainer.scores.texts import measure

_NO_ROWS = "The test split has no rows, so nothing was measured."


def compare(
    base: RowScores,
    tuned: RowScores,
    references: list[str],
    reference_tokens: list[int],
    limit: int,
    named: Sequence[Metric] | None = None,
) -> tuple[EvaluationSummary, list[str], list[RowFigures]]:
    """The scores, the main one first; notes on them in sentences; and the figures that they are of.

    Args:
        base, tuned: figures of the same rows.
        references: the right answers.
        reference_tokens: tokens of each reference.
        limit: most tokens of an answer.
        named: the metrics of the spec; None: those that suit the references.
    """
    if not references:
        return EvaluationSummary(scores=[]), [_NO_ROWS], []
    chosen = choose(references, reference_tokens, limit, named)
    figures = [row_figures(metric, base, tuned, references) for metric in chosen.metrics]
    scores = [(each, score(each)) for each in figures]
    measured = [(each, one) for each, one in scores if one is not None]
    left = [each.metric for each, one in scores if one is None]
    main = measured[0][1].metric
    why = chosen.why if main == chosen.metrics[0] else f"{left[0]} applies to no row"
    main_why = f"{main} is the main metric: {why}."
    notes = [main_why, _meanings([one for _, one in measured])]
    notes += [f"{metric} applies to no row." for metric in left]
    if Metric.TOOL_CALLS in chosen.metrics and (words := how_far(base.answers, tuned.answers, references)):
        notes.append(words)
    summary = EvaluationSummary(scores=[one for _, one in measured], why=main_why)
    return summary, notes, [each for each, _ in measured]


def row_figures(metric: Metric, base: RowScores, tuned: RowScores, references: list[str]) -> RowFigures:
    """One metric of each row."""
    if metric is Metric.LOSS:
        return RowFigures(metric, np.array(base.losses), np.array(tuned.losses), higher_is_better=False)
    of_base, of_tuned = (np.array(measure(metric, each.answers, references)) for each in (base, tuned))
    return RowFigures(metric, of_base, of_tuned, bounds=(0.0, 1.0))


def _meanings(scores: list[Score]) -> str:
    return f"{'; '.join(f'{one.metric}: {METRICS[Metric(one.metric)]}' for one in scores)}."


def compare_losses(base: RowScores, tuned: RowScores) -> tuple[EvaluationSummary, list[str], list[RowFigures]]:
    """The score of texts without answers, and a note on it; arguments as of `compare`."""
    if not base.losses:
        return EvaluationSummary(scores=[]), [_NO_ROWS], []
    figures = row_figures(Metric.LOSS, base, tuned, [])
    note = "loss is the only metric: the rows are texts, without answers that could be compared."
    return EvaluationSummary(scores=[one for one in (score(figures),) if one]), [note], [figures]


def endless(base: RowScores, tuned: RowScores, max_new_tokens: int) -> list[str]:
    """A note on answers of the tuned model that did not end by themselves; none if all did."""
    of_base, of_tuned = sum(base.unfinished), sum(tuned.unfinished)
    if not of_tuned:
        return []
    return [
        f"{of_tuned} of {len(tuned.answers)} answers of the tuned model ({of_base} of the base model) "
        f"did not end within {max_new_tokens} tokens."
    ]
