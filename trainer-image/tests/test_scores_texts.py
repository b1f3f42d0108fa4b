"""Metrics of answers: their figures, which of them suit which references, and what they say is meaningful."""

import json
import math
import random

import numpy as np
import pytest

from hone.contract.metrics import METRICS, Metric
from hone_trainer.scores.choose import choose
from hone_trainer.scores.compare import compare
from hone_trainer.scores.figures import RowFigures, score
from hone_trainer.scores.rows import RowScores
from hone_trainer.scores.texts import TEXT_METRICS, common_subsequence, json_fields, json_valid, measure, rouge_l

TICKET = '{"team": "billing", "urgent": true, "items": [{"id": 1}, {"id": 2}]}'
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
STORY = "The cat sat on the mat and looked at the moon until the sun came up over the hill ."


def by_table(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence by the textbook's table."""
    row = [0] * (len(second) + 1)
    for word in first:
        before, row = row, [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[-1]))
    return row[-1]


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_common_subsequence_is_the_textbooks(seed: int) -> None:
    draw = random.Random(seed)
    first, second = ([draw.choice("abcde") for _ in range(draw.randrange(150))] for _ in range(2))
    assert common_subsequence(first, second) == by_table(first, second)


@pytest.mark.parametrize(
    ("answer", "reference", "figure"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1: LCS is 3 of 4 and 4.
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("Police, killed the GUNMAN!", "police killed the gunman", 1.0),
        ("", "police", 0.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l_is_the_papers(answer: str, reference: str, figure: float) -> None:
    assert rouge_l(answer, reference) == figure


@pytest.mark.parametrize(
    ("answer", "valid", "fields"),
    [
        pytest.param(TICKET, 1, 1.0, id="the same"),
        pytest.param(json.dumps(json.loads(TICKET), indent=2, sort_keys=True), 1, 1.0, id="written in another way"),
        pytest.param(TICKET.replace("billing", "sales"), 1, 0.75, id="one of four fields is wrong"),
        pytest.param(TICKET.replace(', {"id": 2}', ""), 1, 0.75, id="one is missing"),
        pytest.param(TICKET[:-1] + ', "note": "x"}', 1, 0.8, id="one too many"),
        pytest.param(TICKET.replace("true", "1"), 1, 0.75, id="a number is no boolean"),
        pytest.param(f"Sure: {TICKET}", 0, 0.0, id="text around it is no JSON"),
        pytest.param(TICKET[:-1], 0, 0.0, id="cut"),
        pytest.param("[]", 0, 0.0, id="a list is no object"),
    ],
)
def test_json_is_compared_field_by_field(answer: str, valid: float, fields: float) -> None:
    assert (json_valid(answer, TICKET), json_fields(answer, TICKET)) == (valid, fields)


def test_empty_json_is_a_value_too() -> None:
    assert json_fields("{}", "{}") == json_fields('{"a": []}', '{"a": []}') == 1.0
    assert json_fields('{"a": {}}', '{"a": []}') == 0.0


def test_metrics_do_not_apply_where_references_have_no_json_and_no_calls() -> None:
    for metric in (Metric.JSON_FIELDS, Metric.JSON_VALID, Metric.TOOL_CALLS):
        assert math.isnan(measure(metric, [TICKET], ["Yes."])[0])
    assert set(TEXT_METRICS) == set(Metric) - {Metric.LOSS} and set(METRICS) == set(Metric)


@pytest.mark.parametrize(
    ("references", "tokens", "limit", "metrics", "why"),
    [
        (["yes", "no"], 1, 64, "exactMatch loss", "short (half of them have 1 tokens or fewer)"),
        (["New York", "Los Angeles"], 3, 64, "exactMatch tokenF1 loss", "the references are short"),
        ([TICKET, TICKET, "none"], 30, 64, "jsonFields exactMatch jsonValid loss", "2 of 3 references are JSON"),
        ([CALL, CALL, "Hello."], 20, 64, "toolCalls exactMatch loss", "2 of 3 references call tools"),
        (["yes", "no", CALL], 1, 64, "exactMatch toolCalls loss", "the references are short"),
        ([STORY], 20, 64, "rougeL tokenF1 exactMatch loss", "the references are long texts"),
        ([STORY], 80, 64, "loss rougeL tokenF1 exactMatch", "raise spec.evaluation.maxNewTokens"),
    ],
)
def test_the_references_choose_the_metrics(
    references: list[str], tokens: int, limit: int, metrics: str, why: str
) -> None:
    chosen = choose(references, [tokens] * len(references), limit, None)
    assert [metric.value for metric in chosen.metrics] == metrics.split()
    assert why in chosen.why


def test_the_spec_names_others_and_loss_is_measured_in_any_case() -> None:
    chosen = choose(["yes"], [1], 64, [Metric.ROUGE_L, Metric.EXACT_MATCH])
    assert chosen.metrics == (Metric.ROUGE_L, Metric.EXACT_MATCH, Metric.LOSS)
    assert "spec.evaluation.metrics" in chosen.why


def test_a_named_metric_that_applies_to_no_row_does_not_lead() -> None:
    figures = RowScores([1.0], ["yes"])
    evaluation, _, _ = compare(figures, figures, ["yes"], [1], 64, [Metric.JSON_FIELDS, Metric.EXACT_MATCH])
    assert [each.metric for each in evaluation.scores] == ["exactMatch", "loss"]
    assert evaluation.why == "exactMatch is the main metric: jsonFields applies to no row."


def test_the_demos_answers_are_led_by_what_a_reader_wants_to_know() -> None:
    references = [TICKET.replace("1", str(i)) for i in range(100, 200)]
    tuned = RowScores([0.014] * 100, [*references[:97], *["{}"] * 3])
    base = RowScores([2.0] * 100, ["I am not sure."] * 100)
    evaluation, _, figures = compare(base, tuned, references, [30] * 100, 64)
    main = evaluation.scores[0]
    assert (main.metric, main.base.value, main.tuned.value) == ("jsonFields", 0.0, 0.97)
    assert main.improvement.lower > 0.85
    assert [each.metric for each in figures] == [each.metric for each in evaluation.scores]


def test_rows_without_a_figure_do_not_count() -> None:
    nan = math.nan
    figures = RowFigures("m", np.array([nan, 0.0, 0.5, 0.25]), np.array([1.0, nan, 1.0, 0.75]))
    summary = score(figures) or pytest.fail("two rows have figures")
    assert (summary.samples, summary.base.value, summary.tuned.value) == (2, 0.375, 0.875)
    assert score(figures.at(np.array([0, 1]))) is None


def test_a_lower_loss_is_an_improvement() -> None:
    summary = score(RowFigures("loss", np.array([2.0, 1.5]), np.array([1.0, 1.25]), higher_is_better=False))
    assert summary and summary.improvement.value == 0.625


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a": ', "}")])
def test_json_that_is_nested_as_deeply_as_its_parser_takes_is_compared(opening: str, closing: str) -> None:
    for depth in (300, 600, 800):
        text = f"{opening * depth}1{closing * depth}"
        assert json_fields(text, text) == 1.0
        assert json_fields(f"{opening * depth}2{closing * depth}", text) == 0.0
