"""Tool calling from rows to requests: a real model is tuned, scored, served by vLLM, and asked by OpenAI's client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dev import tool_calls, vllm
from dev.data import calls
from dev.smollm2 import cache
from hone.contract.metrics import Metric
from hone.contract.results import EvaluationSummary, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import load_prepared
from hone_trainer.protocol.planfile import require_plan

if TYPE_CHECKING:
    from openai import OpenAI

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def evaluation(directory: Path) -> EvaluationSummary:
    """The scores of the tuned model."""
    model = cache.find()
    if model is None:
        pytest.skip("SmolLM2 is not built: run `.venv/bin/python -m dev.smollm2 build`")
    return tool_calls.tune(model, directory)


@pytest.fixture(scope="module")
def score(evaluation: EvaluationSummary) -> Score:
    """How many calls are right: less than half of the rows have one, so it is not the main metric."""
    return next(each for each in evaluation.scores if each.metric == Metric.TOOL_CALLS)


@pytest.fixture(scope="module")
def client(evaluation: EvaluationSummary, directory: Path) -> Iterator["OpenAI"]:
    with vllm.serving(tool_calls.DEPLOYMENT, directory / "output/artifact", directory) as url:
        yield tool_calls.client_of(url)


def test_the_tuned_model_calls_tools_better_than_its_base(score: Score) -> None:
    assert score.samples >= 15
    assert score.improvement.lower > 0
    assert score.tuned.value > 0.6


def test_its_artifact_has_the_template_that_it_was_trained_with(evaluation: EvaluationSummary, directory: Path) -> None:
    assert (directory / "output/artifact/chat_template.jinja").read_text() == tool_calls.TEMPLATE.read_text()


def test_the_server_asks_the_model_with_the_tokens_of_training(client: "OpenAI", directory: Path) -> None:
    """By the template that replaced the model's."""
    config = RunConfig.from_dict(json.loads((directory / "run.json").read_text()))
    test = load_prepared(require_plan(config).prepared).test
    prompts = {tuple(ids) for ids in test["prompt_ids"][:]}
    rows = [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]
    requests = {tuple(_tokens(client, row)) for row in rows}
    assert prompts
    assert prompts <= requests


def _tokens(client: "OpenAI", row: calls.Row) -> list[int]:
    name = tool_calls.DEPLOYMENT["metadata"]["name"]
    body = {"model": name, "messages": row["messages"][:-1], "tools": row["tools"], "add_generation_prompt": True}
    answer: dict[str, Any] = client.with_options(base_url=str(client.base_url).replace("/v1", "")).post(
        "/tokenize", body=body, cast_to=dict[str, Any]
    )
    tokens: list[int] = answer["tokens"]
    return tokens


def test_the_server_parses_its_calls(client: "OpenAI", score: Score) -> None:
    rows = tool_calls.requests(20)
    right = sum(tool_calls.ask(client, row) == calls.call_of(row) for row in rows)
    assert right / len(rows) > score.tuned.lower - 0.1, "about as many as were scored"


def test_a_client_can_name_the_tool_require_one_or_none(client: "OpenAI") -> None:
    (row,) = tool_calls.requests(1)
    for name in ("get_weather", "track_order"):
        answer = tool_calls.ask(client, row, {"type": "function", "function": {"name": name}})
        assert answer is not None
        assert answer[0] == name
    assert tool_calls.ask(client, row, "required") is not None
    assert tool_calls.ask(client, row, "none") is None


def test_it_answers_in_words_after_a_tools_result_and_where_no_tool_is_needed(client: "OpenAI") -> None:
    answer = tool_calls.answer_with_result(client)
    assert "windy" in answer
    assert "17" in answer
    thanks = {"messages": [{"role": "user", "content": "Thank you!"}, {}], "tools": calls.TOOLS}
    assert tool_calls.ask(client, thanks) is None
