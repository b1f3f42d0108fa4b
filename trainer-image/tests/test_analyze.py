"""The analysis of a rollout against stubs of both servers: what passes, what fails, and what cannot be told."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from openai_stub import stub

from hone.contract.analysis import ANALYSIS_ENV, Analysis, AnalysisSummary
from hone.contract.exits import FailureClass, exit_code
from hone.contract.results import MAX_TERMINATION_BYTES
from hone.core import reported
from hone_trainer.analyze import analyze
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.results import TERMINATION_LOG_ENV
from hone_trainer.scores.questions import Endpoint, Reply, questions_of
from hone_trainer.scores.revisions import judge
from hone_trainer.scores.speed import measure

KEY = "k" * 32


def rows(tmp_path: Path, count: int = 200, answer: str = "yes {}") -> Path:
    """A file with prompts that name their right answers."""
    path = tmp_path / "rows.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"say {answer.format(row)}"}, _assistant(answer.format(row))]}
        for row in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def config(path: Path, stable: str, candidate: str, **settings: Any) -> Analysis:
    """What to compare; exactMatch with a tolerance of 0.05 unless said otherwise."""
    defaults = {"metric": "exactMatch", "tolerance": 0.05, "confidence": 0.95, "api": "Chat", "model": "bot"}
    fields = {**defaults, "max_samples": 500, "max_tokens": 64, **settings}
    return Analysis(stable=stable, candidate=candidate, rows=str(path), **fields)


def compared(path: Path, stable: dict[str, Any], candidate: dict[str, Any], **settings: Any) -> AnalysisSummary:
    """What the analysis of two such servers shows."""
    with stub(**stable) as one, stub(**candidate) as other:
        return analyze(config(path, one.url, other.url, **settings))


GOOD = {"right": 0.9}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "as good": (GOOD, GOOD, "Pass", "exactMatch 0."),
    "better": ({"right": 0.5}, {"right": 0.95}, "Pass", "exactMatch 0.9"),
    "worse": ({"right": 0.9}, {"right": 0.6}, "Fail", "is below -0.05"),
    "a little worse": ({"right": 0.9}, {"right": 0.84}, "Inconclusive", "too few to tell"),
    "perhaps too much worse": ({"right": 0.9}, {"right": 0.83}, "Inconclusive", "too few to tell"),
    "empty answers": ({"right": 0.1}, {"right": 0.1, "wrong": ""}, "Fail", "answers are not empty"),
    "answers without an end": (GOOD, {**GOOD, "finish": "length"}, "Fail", "answers end within 64 tokens"),
    "errors": (GOOD, {**GOOD, "fails": 0.3}, "Fail", "answers come without an error"),
    "few errors": (GOOD, {**GOOD, "fails": 0.01}, "Pass", "exactMatch 0."),
    "nothing but errors": (GOOD, {"fails": 1.1}, "Fail", "none of 200 prompts: HTTP 500: "),
    "a stable revision that is broken": ({"fails": 0.9}, GOOD, "Inconclusive", "served answered 1"),
    "no key": (GOOD, {**GOOD, "key": KEY}, "Fail", "none of 200 prompts: HTTP 401"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_candidate_is_judged_by_its_answers(case: str, tmp_path: Path) -> None:
    stable, candidate, verdict, words = CASES[case]
    summary = compared(rows(tmp_path), stable, candidate)
    assert summary.verdict == verdict, summary.message
    assert words in summary.message


def test_the_figures_are_those_of_the_answers(tmp_path: Path) -> None:
    summary = compared(rows(tmp_path), {"right": 1}, {"right": 0, "fails": 0.02})
    assert (summary.stable, summary.candidate) == (1.0, 0.0)
    assert summary.samples + summary.errors == 200 and summary.errors > 0
    assert summary.difference is not None and summary.difference.upper < -0.9
    assert summary.stable_latency and 0 < summary.stable_latency.p50 <= summary.stable_latency.p95 < 5


def test_more_rows_and_more_tolerance_tell_what_few_rows_do_not(tmp_path: Path) -> None:
    pair = ({"right": 0.9}, {"right": 0.84})
    assert compared(rows(tmp_path), *pair, tolerance=0.2).verdict == "Pass"
    assert compared(rows(tmp_path, 2000), *pair, tolerance=0.02, max_samples=2000).verdict == "Fail"


def test_a_slower_candidate_fails_only_where_a_limit_says_so(tmp_path: Path) -> None:
    """With times that are given, since those of this machine depend on what else it does."""
    path = rows(tmp_path, 40)
    questions = questions_of(path.read_bytes(), "Chat", 40)
    replies = [(Reply(each.reference, 0.01), Reply(each.reference, 0.2)) for each in questions]
    limited, free = (config(path, "", "", tolerance=0.3, latency_tolerance=limit) for limit in (1.0, None))
    assert "p95 of the latency" in judge(limited, questions, replies).message
    assert judge(free, questions, replies).verdict == "Pass"


def test_json_answers_are_compared_by_field_and_must_be_json(tmp_path: Path) -> None:
    path = rows(tmp_path, answer='{{"id": {}, "unit": "kg"}}')
    assert compared(path, GOOD, GOOD, metric=None).metric == "jsonFields"
    broken = compared(path, {"right": 0.5, "wrong": "{}"}, {"right": 0.5, "wrong": "no"}, metric=None)
    assert (broken.verdict, "are JSON where they are to be" in broken.message) == ("Fail", True)


def test_classes_are_compared_by_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"text": f"{row}: say {'up' if row % 2 else 'down'}", "label": "up" if row % 2 else "down"})
        for row in range(200)
    ]
    path.write_text("\n".join(lines))
    summary = compared(path, GOOD, {"right": 0.5}, api="Classify", metric=None)
    assert (summary.metric, summary.verdict) == ("accuracy", "Fail")


def test_both_get_the_same_prompts_without_the_answer_at_temperature_0(tmp_path: Path) -> None:
    with stub() as one, stub() as other:
        analyze(config(rows(tmp_path, 30), one.url, other.url, max_samples=10))
    first, second = (
        sorted((body for body in server.requests if "stream" not in body), key=str) for server in (one, other)
    )
    assert first == second and len(first) == 10
    assert {body["temperature"] for body in first} == {0}
    assert all(message["role"] == "user" for body in first for message in body["messages"])


def test_each_server_gets_a_key_of_its_own_secret_that_counts(tmp_path: Path) -> None:
    for directory, key in (("keys", KEY), ("stable", "s" * 16)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "a").write_text("too short")
        (tmp_path / directory / "b").write_bytes(b"\xff" * 5000)
        (tmp_path / directory / "website").write_text(key)
    keys = {"keys": str(tmp_path / "keys"), "stable_keys": str(tmp_path / "stable")}
    summary = compared(rows(tmp_path), {"key": "s" * 16}, {"key": KEY}, **keys)
    assert (summary.verdict, summary.errors) == ("Pass", 0)


def test_a_revision_with_the_name_from_before_is_asked_by_that(tmp_path: Path) -> None:
    summary = compared(rows(tmp_path), {"model": "old-bot"}, {"model": "bot"})
    assert (summary.verdict, summary.samples) == ("Pass", 200)
    assert compared(rows(tmp_path), {}, {"model": "old-bot"}).verdict == "Fail", "the candidate has the spec's name"


def test_a_server_that_limits_a_key_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    summary = compared(rows(tmp_path, 20), {"limits": 7}, GOOD)
    assert summary.samples == 20 and [wait for wait in waits if wait] == [3.0] * 7


def test_a_server_that_limits_a_key_for_long_is_an_error(tmp_path: Path) -> None:
    summary = compared(rows(tmp_path, 20), {"limits": 1000, "again": 60}, GOOD)
    assert (summary.verdict, summary.samples) == ("Inconclusive", 0)


def test_the_candidate_is_measured_token_by_token_with_nothing_of_its_cache(tmp_path: Path) -> None:
    with stub() as one, stub(seconds=0.05, each=0.01) as other:
        summary = analyze(config(rows(tmp_path, 40, "abcdefgh {:02}"), one.url, other.url, tolerance=0.3))
    speed = summary.performance
    assert speed and (speed.requests, speed.concurrency) == (32, 4)
    assert 0.06 <= speed.ttft_p50 <= speed.ttft_p95 < 5
    # 11 letters in 0.16 s each, four at a time; the machine may be slower.
    assert 1 < speed.tokens_per_second < 4 * 11 / 0.16
    streams = [body for body in other.requests if body.get("stream")]
    assert len({body["cache_salt"] for body in streams}) == 32
    assert not any(body.get("stream") for body in one.requests)


UNMEASURED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one that fails": ({"right": 0.0}, {}),
    "one that does not answer": ({"fails": 1.1}, {}),
    "another API": ({}, {"api": "Classify", "metric": None}),
}


@pytest.mark.parametrize("case", UNMEASURED)
def test_what_is_not_served_or_not_streamed_is_not_measured(case: str, tmp_path: Path) -> None:
    settings, analysis = UNMEASURED[case]
    path = rows(tmp_path, 60)
    if "api" in analysis:
        path.write_text("\n".join(json.dumps({"text": f"{row}: say up", "label": "up"}) for row in range(60)))
    assert compared(path, {}, settings, **analysis).performance is None


def test_too_few_streams_measure_nothing(tmp_path: Path) -> None:
    questions = questions_of(rows(tmp_path, 40).read_bytes(), "Chat", 40)
    with stub(fails=0.95) as server:
        assert measure(Endpoint(server.url, "bot", "Chat", 8), questions) is None
    assert measure(Endpoint("http://127.0.0.1:1", "bot", "Chat", 8), questions) is None


BAD_ROWS = {
    "": "has no rows",
    "{": "line 1 is not JSON",
    '{"a": 1}': "line 1 has no prompt with its right answer",
    '\n{"messages": [{"role": "user", "content": "a"}]}': "line 2 has no prompt with its right answer",
    "[1]": "line 1 has no prompt",
}


@pytest.mark.parametrize("content", BAD_ROWS)
def test_rows_that_cannot_be_asked_are_refused_by_field_and_line(content: str) -> None:
    with pytest.raises(BadInput) as refusal:
        questions_of(content.encode(), "Chat", 10)
    assert BAD_ROWS[content] in str(refusal.value)
    assert "spec.rollout.analysis.dataset" in str(refusal.value)


def test_prompts_and_completions_are_rows_too() -> None:
    lines = [
        {"prompt": "a", "completion": "b"},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [_assistant("b")]},
    ]
    questions = questions_of("\n".join(map(json.dumps, lines)).encode(), "Chat", 10)
    assert questions[0] == questions[1]


def program(tmp_path: Path, analysis: Analysis) -> tuple[int, str]:
    """Run it as its pod does: exit code and termination message."""
    log = tmp_path / "log"
    environment = {**os.environ, ANALYSIS_ENV: analysis.to_json(), TERMINATION_LOG_ENV: str(log)}
    ended = subprocess.run([sys.executable, "-m", "hone_trainer.analyze"], env=environment, capture_output=True)
    return ended.returncode, log.read_text()


def test_the_program_reports_what_the_operator_believes(tmp_path: Path) -> None:
    with stub(right=0.9) as one, stub(right=0.5) as other:
        code, message = program(tmp_path, config(rows(tmp_path), one.url, other.url))
    assert code == 0 and len(message.encode()) <= MAX_TERMINATION_BYTES
    result = reported.step_result(message)
    assert result and result.analysis and result.analysis.verdict == "Fail"


def test_the_program_ends_with_the_field_that_is_wrong(tmp_path: Path) -> None:
    code, message = program(tmp_path, config(tmp_path / "missing.jsonl", "http://127.0.0.1:1", "http://127.0.0.1:1"))
    assert code == exit_code(FailureClass.BAD_INPUT)
    result = reported.step_result(message)
    assert result and result.verdict and "spec.rollout.analysis.dataset" in result.verdict.message
