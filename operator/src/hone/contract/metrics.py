"""The metrics of written answers, which `evaluation.metrics` names."""

from collections.abc import Mapping
from enum import StrEnum


class Metric(StrEnum):
    """A metric of answers, compared with those in the test rows."""

    EXACT_MATCH = "exactMatch"
    TOKEN_F1 = "tokenF1"
    ROUGE_L = "rougeL"
    JSON_FIELDS = "jsonFields"
    JSON_VALID = "jsonValid"
    TOOL_CALLS = "toolCalls"
    LOSS = "loss"


METRICS: Mapping[Metric, str] = {
    Metric.EXACT_MATCH: "share of answers that are the reference, spaces at both ends aside",
    Metric.TOKEN_F1: "F1 of the words of answer and reference, as for SQuAD, but with articles",
    Metric.ROUGE_L: "ROUGE-L, the F1 of the longest common subsequence of words",
    Metric.JSON_FIELDS: "mean share of the fields of a JSON answer that have the reference's value, where references "
    "are JSON",
    Metric.JSON_VALID: "share of answers that are JSON, where references are",
    Metric.TOOL_CALLS: "share of answers with the same tool calls, where references have any",
    Metric.LOSS: "mean negative log-likelihood of a reference's token, in nats; lower is better",
}
"""What each is, for people."""
