"""Answers compared by another model: a judge's bias is found and reported, and its failure costs no other score."""

import re
import socket
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from judge_server import JudgeServer, Rule, at_random, first, honest, longer, serving

from hone.contract.judge import Judge
from hone.contract.results import MAX_TERMINATION_BYTES, EvaluationSummary, JudgeSummary, Score, StepResult
from hone_trainer import finish
from hone_trainer.protocol.results import encode
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.scores.evaluated import Pair
from hone_trainer.scores.intervals import bounded_mean
from hone_trainer.scores.judge import JudgeFailed, evaluate, points, record
from hone_trainer.scores.preferred import CONTROLLED, WIN_RATE, Comparison, combined, summarize


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """A judge behind the Service `judge` of the namespace `team`; nothing waits between tries."""
    resolve = socket.getaddrinfo

    def of_cluster(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".svc") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", of_cluster)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(JudgeServer()) as started:
        yield started


def spec(server: JudgeServer, **fields: Any) -> Judge:
    return Judge.from_dict({"url": f"http://judge.team.svc:{server.port}/v1/", "model": "judge-1", **fields})


def pairs(count: int, right: float, longer: float, seed: int = 3) -> list[Pair]:
    """Answers of which the tuned model's are right, and longer, in so many cases; the base's are right in half."""
    random = Random(seed)
    rows = []
    for row in range(count):
        words = ["right" if random.random() < share else "wrong" for share in (0.5, right)]
        padding = ["", " because"] if random.random() < longer else [" because", ""]
        base, tuned = (f"{word}{text}" for word, text in zip(words, padding, strict=True))
        rows.append(Pair(f"question {row}", "right", base, tuned))
    return rows


def judged(server: JudgeServer, rule: Rule, rows: list[Pair]) -> JudgeSummary:
    server.rule = rule
    return evaluate(spec(server), "team", rows, 60.0)


def by_metric(summary: JudgeSummary) -> dict[str, Score]:
    return {score.metric: score for score in summary.scores}


def warned(summary: JudgeSummary) -> str:
    return " ".join(summary.warnings or [])


def test_a_sound_judge_prefers_the_better_model_and_is_not_suspected(server: JudgeServer) -> None:
    summary = judged(server, honest, pairs(200, right=0.95, longer=0.5))
    assert summary.scores[0].metric == CONTROLLED and summary.scores[0].tuned.lower > 0.6
    assert summary.agreement.value == 1.0
    assert not summary.is_blind and not summary.warnings and summary.unread == 0
    assert summary.scores[0].base.value == pytest.approx(1 - summary.scores[0].tuned.value)
    assert summary.scores[0].improvement.value == pytest.approx(2 * summary.scores[0].tuned.value - 1)


def test_a_judge_that_prefers_the_longer_is_found_and_gains_the_longer_model_nothing(server: JudgeServer) -> None:
    summary = judged(server, longer, pairs(200, right=0.5, longer=0.9))
    scores = by_metric(summary)
    assert scores[WIN_RATE].tuned.lower > 0.8, "the rate alone would call it much better"
    assert scores[CONTROLLED].tuned.lower <= 0.5 <= scores[CONTROLLED].tuned.upper
    assert "prefers longer answers" in warned(summary)
    assert summary.longer_preferred and summary.longer_preferred.lower > 0.8
    assert not summary.is_blind


def test_a_judge_that_prefers_the_first_is_found_and_decides_nothing(server: JudgeServer) -> None:
    summary = judged(server, first, pairs(100, right=0.95, longer=0.5))
    assert by_metric(summary)[WIN_RATE].tuned.value == 0.5
    assert summary.first_preferred.value == 1.0 and summary.agreement.value == 0.0
    assert "prefers the answer that comes first: 100%" in warned(summary)
    assert summary.is_blind


@pytest.mark.parametrize("seed", range(3))
def test_a_judge_that_draws_is_found(server: JudgeServer, seed: int) -> None:
    summary = judged(server, at_random(seed), pairs(200, right=0.95, longer=0.5))
    assert summary.is_blind and "not shown to depend on the answers" in warned(summary)
    lower, upper = by_metric(summary)[WIN_RATE].tuned.at(0.999) or (1.0, 0.0)
    assert lower <= 0.5 <= upper


def test_a_tuned_model_that_is_always_better_is_not_taken_for_a_blind_judge() -> None:
    rows = [Comparison(1.0, 1.0, longer=(-1) ** row) for row in range(40)]
    summary = summarize("judge-1", rows, 0)
    assert not summary.is_blind and not summary.warnings
    tuned = summary.scores[0].tuned
    assert tuned.value == 1.0 and 0.8 < tuned.lower < 1.0, "a gate needs an interval with a width"


def test_lengths_that_differ_one_way_only_are_reported() -> None:
    summary = summarize("judge-1", [Comparison(1.0, 1.0, longer=5)] * 35 + [Comparison(0.0, 0.0, -5)] * 5, 0)
    assert [score.metric for score in summary.scores] == [WIN_RATE]
    assert "longer in 35 rows and shorter in 5" in warned(summary)


def test_intervals_of_sums_cover_the_truth() -> None:
    random, within, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        parts = [bounded_mean(random.binomial(1, share, 60).astype(float), 0.0, 1.0) for share in (0.8, 0.4)]
        interval = combined([(0.5, parts[0]), (-0.5, parts[1])], 0.5)
        within += interval.lower <= 0.7 <= interval.upper
    assert within / runs >= 0.93


def test_both_orders_of_each_row_are_asked_and_the_key_is_sent(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    judge = spec(server, apiKeySecretRef={"name": "judge"}, criteria="The shorter, the better.", maxSamples=2)
    summary = evaluate(judge, "team", pairs(5, right=1.0, longer=0.5), 60.0)
    assert summary.scores[0].samples == 2 and len(server.prompts) == 4
    assert set(server.keys) == {"Bearer sk-1"}
    assert all("The shorter, the better." in prompt for prompt in server.prompts)
    assert "The shorter, the better." in record(judge).prompt
    server.keys.clear()
    evaluate(spec(server), "team", pairs(1, right=1.0, longer=0.5), 60.0)
    assert set(server.keys) == {None}, "without a Secret, no variable of the pod is sent"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"statuses": [401] * 99}, "HTTP 401: check the key OPENAI_API_KEY"),
        ({"statuses": [404] * 99}, "HTTP 404: check url and model"),
        ({"statuses": [503] * 999}, "HTTP 503, 4 times in a row"),
        ({"text": "Both are fine."}, "none of 3 rows has two verdicts"),
        ({"body": b"<html>"}, "no chat completion"),
        ({"body": b'{"choices": [{"message": 3}]}'}, "no chat completion"),
        ({"body": b"x" * (2 << 20)}, "more than 1,048,576 bytes"),
    ],
)
def test_a_broken_judge_is_named_and_nothing_of_its_answer_repeated(
    server: JudgeServer, broken: dict[str, Any], words: str
) -> None:
    for name, value in broken.items():
        setattr(server, name, value)
    with pytest.raises(JudgeFailed, match=re.escape(words)) as failed:
        evaluate(spec(server), "team", pairs(3, right=1.0, longer=0.5), 60.0)
    assert "secret words" not in str(failed.value) and "html" not in str(failed.value)


def test_a_short_outage_is_waited_for(server: JudgeServer) -> None:
    server.statuses = [503, 429]
    assert evaluate(spec(server), "team", pairs(1, right=1.0, longer=0.5), 60.0).scores[0].samples == 1


@pytest.mark.parametrize("namespace", ["other", ""])
def test_only_services_of_the_own_namespace_may_have_private_addresses(server: JudgeServer, namespace: str) -> None:
    with pytest.raises(JudgeFailed, match=r"no public address.*Service of the job's namespace"):
        evaluate(spec(server), namespace, pairs(1, right=1.0, longer=0.5), 60.0)
    assert not server.prompts


def test_a_judge_that_nobody_serves_is_named(server: JudgeServer) -> None:
    judge = spec(server).model_copy(update={"url": "http://judge.team.svc:9/v1"})
    with pytest.raises(JudgeFailed, match="cannot be reached"):
        evaluate(judge, "team", pairs(1, right=1.0, longer=0.5), 60.0)


def test_rows_that_time_does_not_allow_are_counted(server: JudgeServer) -> None:
    with pytest.raises(JudgeFailed, match=r"raise evaluation\.maxMinutes"):
        evaluate(spec(server), "team", pairs(3, right=1.0, longer=0.5), -1.0)
    assert not server.prompts


@pytest.mark.parametrize(
    ("answer", "worth"),
    [("VERDICT: A", 1.0), ("so: **Verdict:** B.", 0.0), ("VERDICT: A\nNo.\nVERDICT: tie", 0.5), ("A is better", None)],
)
def test_the_last_verdict_counts(answer: str, worth: float | None) -> None:
    assert points(answer) == worth


def test_what_cannot_be_scored_costs_no_other_score() -> None:
    def unreachable() -> None:
        raise JudgeFailed("it cannot be reached")

    def broken() -> None:
        raise RuntimeError("CUDA out of memory")

    scored = EvaluationSummary(scores=[])
    summary = finish._with_others(scored, retention=broken, judge=unreachable)
    retention, judge = summary.problems or []
    assert judge == "spec.evaluation.judge was not scored: it cannot be reached"
    assert retention.startswith("spec.evaluation.retention was not scored: ")
    assert finish._with_others(scored, retention=None, judge=False) == scored

    def stopped() -> None:
        raise Preempted("stopped")

    with pytest.raises(Preempted):
        finish._with_others(scored, judge=stopped)


def test_the_fullest_verdicts_fit_into_a_termination_message() -> None:
    rows = [Comparison(1.0, row % 3 / 2, (-1) ** row) for row in range(97)]
    judge = summarize("m" * 253, rows, 3).model_copy(update={"warnings": ["文" * 256] * 4})
    summary = EvaluationSummary(scores=judge.scores * 4, judge=judge, problems=["文" * 256] * 2)
    data = encode(StepResult(step="finish", evaluation=summary))
    assert len(data) <= MAX_TERMINATION_BYTES
    evaluation = StepResult.model_validate_json(data).evaluation
    assert evaluation and evaluation.judge and evaluation.judge.scores[0].improvement.levels
    assert evaluation.problems
