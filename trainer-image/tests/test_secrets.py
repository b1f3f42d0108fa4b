"""Values that a step took from its environment: in none of its logs, and not in its result."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.contract.exits import FailureClass
from hone.contract.results import StepResult
from hone.contract.verdict import Verdict
from hone_trainer.protocol import secrets
from hone_trainer.protocol.logs import JsonFormatter
from hone_trainer.protocol.results import write_result

VALUE = "planted-secret"


@pytest.fixture(autouse=True)
def _withheld(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secrets, "withheld", {})
    secrets.take({"HF_TOKEN_MODEL": VALUE, "SHORT": "is"})
    yield


def test_a_log_line_names_the_variable_instead_also_in_a_traceback() -> None:
    try:
        raise ValueError(f"Illegal header value b'Bearer {VALUE}'")
    except ValueError as error:
        information = (type(error), error, error.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "this is %s", (VALUE,), information)
    line = json.loads(JsonFormatter().format(record))
    assert line["msg"] == "this is $HF_TOKEN_MODEL"
    assert "Bearer $HF_TOKEN_MODEL" in line["exception"]
    assert VALUE not in line["exception"]


def test_the_result_names_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "end"))
    verdict = Verdict(failure_class=FailureClass.CRASHED, message=f"refused: {VALUE}", exit_code=70)
    write_result(StepResult(step="prepare", verdict=verdict))
    written = StepResult.model_validate_json((tmp_path / "end").read_text())
    assert written.verdict is not None
    assert written.verdict.message == "refused: $HF_TOKEN_MODEL"
