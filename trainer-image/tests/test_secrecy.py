"""What a step reports holds neither the value of an environment variable nor the text of a row."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row

from hone.contract.results import StepResult
from hone.contract.verdict import Verdict
from hone_trainer import prepare as step
from hone_trainer.protocol import runconfig
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.results import without_values
from hone_trainer.protocol.verdicts import Preempted, from_exception

CANARY = "zqCanary7"
TURN = {"role": "user", "content": f"{CANARY} is it good?"}
ANSWER = {"role": "assistant", "content": f"yes {CANARY}"}
ROWS: dict[str, tuple[str, str | list[Any]]] = {
    "no answer": ("rows.jsonl", [{"messages": [TURN]}]),
    "an empty answer": ("rows.jsonl", [{"messages": [TURN, {**ANSWER, "content": ""}]}]),
    "an unknown role": ("rows.jsonl", [{"messages": [TURN, {**ANSWER, "role": CANARY}]}]),
    "tool calls": ("rows.jsonl", [{"messages": [TURN, {**ANSWER, "tool_calls": [CANARY]}]}]),
    "another sender": ("rows.jsonl", [{"conversations": [{"from": CANARY, "value": CANARY}]}]),
    "an unknown column": ("rows.jsonl", [{f"{CANARY} as a key": CANARY}]),
    "no object": ("rows.jsonl", [CANARY]),
    "no JSON": ("rows.jsonl", f'{{"messages": {CANARY}\n'),
    "an object over lines": ("rows.json", f'{{"messages":\n "{CANARY}"}}\n'),
    "an array that ends early": ("rows.json", f'[{{"messages": "{CANARY}'),
    "CSV without a header": ("rows.csv", f"say {CANARY},good\nsay it,bad\n"),
    "CSV with a column twice": ("rows.csv", f"say {CANARY},say {CANARY}\na,b\n"),
    "CSV whose quotes do not end": ("rows.csv", f'prompt,completion\n"{CANARY},"b"c\n'),
    "too many classes": ("rows.jsonl", [{"text": "t", "label": f"{CANARY} {i}"} for i in range(2000)]),
    "too long a label": ("rows.jsonl", [{"text": "t", "label": CANARY * 100}]),
    "a row too many for the template": ("rows.jsonl", [{"messages": [ANSWER, ANSWER]}]),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., Any]) -> Callable[..., str]:
    """Runs prepare and returns its termination message."""
    monkeypatch.setattr(step.signal, "signal", lambda *_: None)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "termination-log"))

    def prepared(**sections: Any) -> str:
        (tmp_path / "run.json").write_text(json.dumps(make_config(**sections)))
        step.main()
        return (tmp_path / "termination-log").read_text()

    return prepared


@pytest.mark.parametrize("case", ROWS)
def test_no_error_shows_a_row(run: Callable[..., str], tmp_path: Path, case: str) -> None:
    name, content = ROWS[case]
    text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    (tmp_path / name).write_text(text)
    objective = "Classification" if "label" in text else "SFT"
    message = run(data={"train": str(tmp_path / name)}, objective=objective)
    assert '"class":"BadInput"' in message
    assert CANARY not in message


def test_rows_that_are_left_out_are_not_shown(run: Callable[..., str]) -> None:
    bad = [json.loads(row) for _, rows in ROWS.values() if isinstance(rows, list) for row in map(json.dumps, rows[:1])]
    message = run(rows=[*(chat_row(i) for i in range(300)), *bad])
    assert json.loads(message)["dataset"]["badRows"]
    assert CANARY not in message


@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError, json.JSONDecodeError, UnicodeDecodeError])
def test_a_crash_does_not_show_what_it_stumbled_over(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    more = {json.JSONDecodeError: (CANARY, 0), UnicodeDecodeError: (b"", 0, 1, CANARY)}.get(error, ())
    arguments = ("utf-8", *more) if error is UnicodeDecodeError else (CANARY, *more)

    def fail(*_: Any) -> None:
        raise error(*arguments)

    monkeypatch.setattr(step, "find_sources", fail)
    message = run()
    assert '"class":"Crashed"' in message and error.__name__ in message
    assert CANARY not in message


@pytest.mark.parametrize("error", [KeyError(CANARY), ValueError(CANARY)])
def test_finish_does_not_show_what_it_stumbled_over(error: Exception) -> None:
    shown = from_exception(error, None, None, None, reads_rows=True).message
    assert type(error).__name__ in shown and CANARY not in shown
    assert from_exception(Preempted("stopped"), None, None, None, reads_rows=True).message == "stopped"


@pytest.mark.slow
def test_a_row_is_shown_only_on_request(run: Callable[..., str]) -> None:
    rows = [{"messages": [TURN, {**ANSWER, "content": f"{ANSWER['content']} {i}"}]} for i in range(300)]
    hidden = json.loads(run(rows=rows))["dataset"]
    assert CANARY not in json.dumps(hidden)
    assert hidden["exampleOutline"].startswith("user (21), assistant (1")
    shown = json.loads(run(rows=rows, data={"showExample": True}))["dataset"]
    assert CANARY in shown["example"] and shown["exampleOutline"].startswith("user (21)")


def test_a_broken_run_config_is_not_shown(run: Callable[..., str], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "broken.json").write_text(CANARY)
    for value in (f"/nowhere/{CANARY}", CANARY * 100, str(tmp_path / "broken.json")):
        monkeypatch.setenv("HONE_RUN_CONFIG", value)
        with pytest.raises(BadInput) as error:
            runconfig.load_run_config()
        assert "HONE_RUN_CONFIG" in str(error.value)
        assert CANARY not in str(error.value) and "broken.json" not in str(error.value)


@pytest.mark.parametrize("value", [CANARY, f'{{"number": "{CANARY}"}}', f'"{CANARY}'])
def test_a_broken_attempt_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HONE_ATTEMPT", value)
    with pytest.raises(BadInput) as error:
        runconfig.load_attempt()
    assert CANARY not in str(error.value)


def test_a_verdict_names_variables_instead_of_their_values(run: Callable[..., str], monkeypatch: Any) -> None:
    monkeypatch.setenv("API_TOKEN", CANARY)

    def fail(*_: Any) -> None:
        raise RuntimeError(f"401 for the key {os.environ['API_TOKEN']}")

    monkeypatch.setattr(step, "find_sources", fail)
    message = run()
    assert "401 for the key $API_TOKEN" in message
    assert CANARY not in message


def test_the_longer_of_two_values_is_left_out_whole() -> None:
    verdict = Verdict(failure_class="Crashed", message=f"a {CANARY} b {CANARY}-more", hint=CANARY)  # type: ignore[arg-type]
    environment = {"A": CANARY, "B": f"{CANARY}-more", "C": "a", "HOSTNAME": "a b c d e"}
    shown = without_values(StepResult(step="train", verdict=verdict), environment).verdict
    assert shown is not None and (shown.message, shown.hint) == ("a $A b $B", "$A")
