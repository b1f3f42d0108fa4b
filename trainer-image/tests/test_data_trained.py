"""Data that are no ordinary conversations, from prepare to the artifact: raw text, and a chat template of the job's."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from in_process import finished, train_here
from rows import chat_row
from test_data_raw_text import ROWS as TEXTS

from hone.contract.runconfig import RunConfig
from hone_trainer import prepare as step
from hone_trainer.models.chat_template import run_tokenizer

SETTINGS = {"epochs": 4, "learningRate": 0.02, "globalBatchSize": 8}


@pytest.mark.train
@pytest.mark.parametrize("kind", ["raw text", "a template of the job's"])
def test_it_is_trained_to_the_end_and_the_artifact_has_the_template(
    kind: str, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = kind == "raw text"
    rows: list[Any] = TEXTS if text else [chat_row(i) for i in range(120)]
    data: dict[str, Any] = {} if text else {"chatTemplate": {"name": "ChatML"}}
    content = make_config(rows, data=data, hyperparameters=SETTINGS)
    (tmp_path / "run.json").write_text(json.dumps(content))
    config = RunConfig.from_dict(content)
    Path(config.paths.output).mkdir()
    planned = step.prepare(config, measures_workspace=False)
    assert planned.dataset.format == ("Text" if text else "Messages")
    with tiny.only_rank():
        train_here(tmp_path, monkeypatch)
    report = finished(config)
    assert report.evaluation is not None
    score = report.evaluation.scores[0]
    assert (score.metric == "loss") is text
    if text:
        assert score.improvement is not None
        assert score.improvement.lower > 0
        return
    template = run_tokenizer(config).chat_template
    assert "<|im_start|>" in str(template)
    (file,) = Path(config.paths.output).rglob("chat_template.jinja")
    assert file.read_text() == template
