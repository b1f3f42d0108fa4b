"""Scores of tool calls: whether they parse, and have the right names and arguments."""

import pytest

from hone.contract.metrics import Metric
from hone_trainer.scores.calls import calls_in, how_far
from hone_trainer.scores.compare import compare, row_figures
from hone_trainer.scores.figures import score as score_of
from hone_trainer.scores.rows import RowScores

HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
OSLO = ("weather", {"city": "Oslo"})


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (HERMES, [OSLO]),
        ('{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
        (f"I look.\n{HERMES}\n{HERMES}", [OSLO, OSLO]),
        ('[{"name": "weather", "arguments": {"city": "Oslo"}}]', [OSLO]),
        ('{"type": "function", "name": "weather", "arguments": {"city": "Oslo"}}', [OSLO]),
        ('{"name": "weather", "arguments": "Oslo"}', []),
        ('{"name": "weather", "arguments": {"city": "Os', []),
        ('It is {"name": "Oslo"}.', []),
        ("Yes, it does.", []),
        ("{" * 5000, []),
    ],
)
def test_calls_are_found_in_what_templates_write(text: str, calls: list[object]) -> None:
    assert calls_in(text) == calls


def test_the_score_is_the_share_of_right_calls_and_the_note_tells_how_far_the_others_are() -> None:
    references = [HERMES, HERMES, HERMES, HERMES, "Yes."]
    base = ["No.", HERMES.replace("Oslo", "Rome"), HERMES.replace("weather", "time"), "{", HERMES]
    tuned = [HERMES, HERMES.replace(": {", ":  {"), HERMES.replace("Oslo", "Rome"), "No.", "Yes."]
    figures = row_figures(Metric.TOOL_CALLS, RowScores([], base), RowScores([], tuned), references)
    score = score_of(figures) or pytest.fail("no row has calls")
    assert (score.metric, score.samples, score.base.value, score.tuned.value) == ("toolCalls", 4, 0.0, 0.5)
    assert score.improvement.value == 0.5
    assert how_far(base, tuned, references) == (
        "Of 4 answers that should call tools, 3 (2) of the tuned (base) model have a call, 3 (1) those of the right "
        "names, 2 (0) with the right arguments."
    )
    assert how_far(["a"], ["b"], ["Yes."]) is None


@pytest.mark.parametrize(("calls", "main"), [(1, "exactMatch"), (2, "toolCalls")])
def test_calls_lead_where_half_of_the_references_have_them(calls: int, main: str) -> None:
    references = [HERMES] * calls + ["Yes."] * (4 - calls)
    figures = RowScores([1.0] * 4, references)
    summary, notes, _ = compare(figures, figures, references, [4] * 4, 64)
    assert summary.scores[0].metric == main
    assert {score.metric for score in summary.scores} == {"exactMatch", "loss", "toolCalls"}
    assert notes[0].startswith(f"{main} is the main metric")
