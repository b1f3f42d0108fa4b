"""Each objective on a real model: `python3 -m dev.real_model ROWS DIRECTORY [--objectives SFT,GRPO]`.

ROWS is a CSV file with the columns text and category, such as Banking77's (CC BY 4.0). Each run prepares the rows in
the form of its objective, trains some steps with the launcher as in a pod, exports and scores, one run at a time, with
all files below DIRECTORY. Distillation learns from the merged model of SFT.
"""

import argparse
import csv
import itertools
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dev import matrix
from dev.smollm2 import cache
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import EvaluationSummary
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat

Row = Mapping[str, str]
ROWS, TEST_ROWS = 300, 4
_STEP = re.compile(r'"loss": ([-\d.e]+)')


def _question(row: Row) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Name the topic of this message in two or three words: {row['text']}"}]


def _answer(topic: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": topic.replace("_", " ")}]


FORMS: Mapping[DataFormat, Callable[[Row, Row, bool], dict[str, Any]]] = {
    DataFormat.MESSAGES: lambda row, other, good: {"messages": [*_question(row), *_answer(row["category"])]},
    DataFormat.TEXT_LABEL: lambda row, other, good: {"text": row["text"], "label": row["category"]},
    DataFormat.PREFERENCE: lambda row, other, good: {
        "prompt": _question(row),
        "chosen": _answer(row["category"]),
        "rejected": _answer(other["category"]),
    },
    DataFormat.UNPAIRED_PREFERENCE: lambda row, other, good: {
        "prompt": _question(row),
        "completion": _answer((row if good else other)["category"]),
        "label": good,
    },
    DataFormat.PROMPT: lambda row, other, good: {
        "prompt": _question(row),
        "reference": row["category"].replace("_", " "),
    },
}
"""A row in each format: from one of the file, another of another topic, and whether it is to be a good one."""


def write_rows(source: Path, target: Path, form: DataFormat) -> None:
    """Write rows of the file in a format, of few topics, so that each has several."""
    chance = random.Random(5)
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    topics = sorted({row["category"] for row in rows})[:8]
    rows = [row for row in rows if row["category"] in topics]
    chance.shuffle(rows)
    with target.open("w") as file:
        for row in rows[:ROWS]:
            other = chance.choice([one for one in rows if one["category"] != row["category"]])
            file.write(json.dumps(FORMS[form](row, other, chance.random() < 0.5)) + "\n")


def config_of(objective: Objective, model: Path, rows: Path, directory: Path, steps: int) -> RunConfig:
    """A run below a directory, with its rows."""
    facts = OBJECTIVES[objective]
    directory.mkdir(parents=True)
    (directory / "output").mkdir()
    write_rows(rows, directory / "rows.jsonl", facts.data.formats[0])
    places = {name: str(directory / name) for name in ("workspace", "run", "output")}
    if facts.needs.teacher:
        places["teacher"] = str(directory.parent / Objective.SFT.value / "output/artifact")
    batch: dict[str, object] = {"globalBatchSize": 4 if facts.generates else 2}
    if facts.generates:
        batch["maxCompletionLength"] = 12
    if facts.needs.reward:
        batch["generations"] = 4
    return RunConfig.from_dict(
        {
            "job": {"namespace": "real-model", "name": objective.value.lower(), "uid": "0"},
            "modelName": model.name,
            "objective": objective.value,
            "hyperparameters": {"maxSteps": steps, **batch},
            "data": {"train": str(directory / "rows.jsonl"), "minSamples": 1},
            "reward": {"functions": [{"name": "F1"}]} if facts.needs.reward else None,
            "topology": {"gpusPerNode": 0},
            "evaluation": {"maxSamples": TEST_ROWS, "maxNewTokens": 12},
            "mergeOutput": objective is Objective.SFT,
            "paths": {"model": str(model), **places},
        }
    )


def tune(objective: Objective, model: Path, rows: Path, directory: Path, steps: int) -> str:
    """Prepare, train and finish a run; returns a sentence about it."""
    from hone_trainer.prepare import prepare

    config = config_of(objective, model, rows, directory, steps)
    (directory / "run.json").write_text(config.to_json())
    at = [time.monotonic()]
    with matrix.quiet():
        prepare(config)
    at.append(time.monotonic())
    if failure := matrix.train(directory):
        return f"failed: {failure}"
    at.append(time.monotonic())
    evaluation = matrix.finish(directory)
    at.append(time.monotonic())
    prepared, trained, finished = (round(after - before) for before, after in itertools.pairwise(at))
    return f"prepare {prepared} s, train {trained} s, finish {finished} s; {_figures(directory, evaluation)}"


def _figures(directory: Path, evaluation: EvaluationSummary) -> str:
    losses = [float(loss) for loss in _STEP.findall((directory / "log").read_text(errors="replace"))]
    loss = f"loss {losses[0]:.3g} → {losses[-1]:.3g}" if losses else "no loss was logged"
    scores = [
        f"{score.metric} {score.base.value:.3g} → {score.tuned.value:.3g} "
        f"({score.improvement.value:+.3g} [{score.improvement.lower:.3g}, {score.improvement.upper:.3g}])"
        for score in evaluation.scores
    ]
    return "; ".join([loss, *scores])


def main() -> int:
    """Run objectives; returns 0 when none failed."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.real_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, metavar="ROWS")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("--model", type=Path, help="a directory that transformers can load (default: SmolLM2)")
    every = ",".join(objective.value for objective in OBJECTIVES)
    parser.add_argument("--objectives", default=every, help=f"default: {every}")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run (default: 20)")
    arguments = parser.parse_args()
    model = arguments.model or cache.find()
    if model is None:
        parser.error("SmolLM2 is not built: run `.venv/bin/python -m dev.smollm2 build`, or name a --model")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    failed = 0
    for name in arguments.objectives.split(","):
        directory = arguments.directory.resolve() / name
        try:
            outcome = tune(Objective(name), model.resolve(), arguments.rows, directory, arguments.steps)
        except Exception as error:
            outcome = f"failed: {type(error).__name__}: {error}"
        failed += outcome.startswith("failed")
        print(f"{name}: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
