"""Which metrics answers are compared by: those of the spec, or those that the references suit, each with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from hone.contract.metrics import Metric
from hone_trainer.data.reasoning import visible
from hone_trainer.scores.calls import calls_in
from hone_trainer.scores.texts import parsed, words

SHORT_REFERENCE_TOKENS = 16
"""References are short when half of them have no more tokens than this: labels, names, figures. Of longer texts there
are many good ones, so that an exact match says little."""
SET_IN_THE_SPEC = "it is the first of spec.evaluation.metrics"


@dataclass(frozen=True)
class Chosen:
    """The metrics of a run.

    Attributes:
        metrics: the main one first.
        why: why that is the main one, as the end of a sentence.
    """

    metrics: tuple[Metric, ...]
    why: str


def choose(references: Sequence[str], tokens: Sequence[int], limit: int, named: Sequence[Metric] | None) -> Chosen:
    """The metrics for these test rows.

    Args:
        references: the right answers, at least one.
        tokens: tokens of each.
        limit: most tokens of an answer that is written.
        named: those of the spec, the main one first; None: it names none.
    """
    if named:
        return Chosen(tuple(dict.fromkeys((*named, Metric.LOSS))), SET_IN_THE_SPEC)
    count, middle = len(references), median(tokens)
    calling = sum(bool(calls_in(text)) for text in references)
    if 2 * calling >= count:
        return Chosen(_metrics(Metric.TOOL_CALLS), f"{calling} of {count} references call tools")
    also = [Metric.TOOL_CALLS] if calling else []
    of_json = sum(parsed(visible(text)) is not None for text in references)
    if 2 * of_json >= count:
        why = f"{of_json} of {count} references are JSON"
        return Chosen(_metrics(Metric.JSON_FIELDS, Metric.EXACT_MATCH, Metric.JSON_VALID, *also), why)
    length = f"(half of them have {middle:g} tokens or fewer)"
    if middle <= SHORT_REFERENCE_TOKENS:
        several = [Metric.TOKEN_F1] if median(len(words(text)) for text in references) > 1 else []
        return Chosen(_metrics(Metric.EXACT_MATCH, *several, *also), f"the references are short {length}")
    long = [Metric.ROUGE_L, Metric.TOKEN_F1, *also]
    if middle <= limit:
        return Chosen(_metrics(*long), f"the references are long texts {length}")
    why = (
        f"the references are longer {length} than the {limit} tokens that are generated: raise "
        f"spec.evaluation.maxNewTokens to compare texts by {Metric.ROUGE_L.value}"
    )
    return Chosen((Metric.LOSS, *long, Metric.EXACT_MATCH), why)


def _metrics(*metrics: Metric) -> tuple[Metric, ...]:
    """These, and those that every run has."""
    return tuple(dict.fromkeys((*metrics, Metric.EXACT_MATCH, Metric.LOSS)))
