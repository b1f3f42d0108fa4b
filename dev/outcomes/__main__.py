"""What the default settings reach: run `python3 -m dev.outcomes [--runs PATTERN] [--data DIRECTORY] [--fresh]`.

A run is a task with a method and an arm (settings). The result is `docs/outcomes.md`. Runs that ended are recorded with
the page, in `build/outcomes`, so that an interrupted one continues. Tasks on data that others made need the directory
of these data, with `banking77/train.csv` and `test.csv`, and `gsm8k/train-2000.jsonl` and `test-500.jsonl`.
"""

import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dev import matrix
from dev.outcomes import tasks
from dev.outcomes.arms import ARMS, settings
from dev.outcomes.page import render
from dev.uv import ROOT
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.results import EvaluationSummary
from hone.contract.runconfig import RunConfig

PAGE = ROOT / "docs/outcomes.md"
RECORDS = ROOT / "build/outcomes"
METHODS = (MethodType.LORA, MethodType.FULL)
SECONDS = 4 * 3600


def runs() -> list[str]:
    """All of them, as task/method/arm."""
    return [f"{task}/{method}/{arm}" for task in tasks.TASKS for method in METHODS for arm in ARMS]


def config_of(run: str, data: Path, directory: Path) -> RunConfig:
    """A run below a directory, its rows written there.

    Raises:
        FileNotFoundError: the base model is not built.
    """
    name, method, arm = run.split("/")
    task = tasks.TASKS[name]
    model = task.find_model()
    if model is None:
        raise FileNotFoundError("the base model is not built: run dev.smollm2 build or dev.basemodel build")
    (directory / "output").mkdir()
    places = {name: str(directory / name) for name in ("workspace", "run", "output")}
    evaluation: dict[str, Any] = {"maxSamples": task.test, "maxNewTokens": task.tokens}
    if task.objective is Objective.SFT:
        evaluation["retention"] = {"set": "General"}
    return RunConfig.from_dict(
        {
            "job": {"namespace": "outcomes", "name": name, "uid": "0"},
            "modelName": model.name,
            "objective": task.objective,
            "data": tasks.write(task, data, directory),
            "topology": {"gpusPerNode": 0},
            "evaluation": evaluation,
            "paths": {"model": str(model), **places},
            **settings(arm, task.objective, MethodType(method)),
        }
    )


def tune(run: str, data: Path) -> dict[str, Any]:
    """Prepare, train, finish; returns what the page shows."""
    from hone_trainer.prepare import prepare

    directory = Path(tempfile.mkdtemp(prefix="hone-outcomes-"))
    try:
        config = config_of(run, data, directory)
        (directory / "run.json").write_text(config.to_json())
        with matrix.quiet():
            prepare(config)
        began = time.monotonic()
        if failure := matrix.train(directory, SECONDS):
            return {"failed": failure.splitlines()[0]}
        minutes = (time.monotonic() - began) / 60
        return _record(matrix.finish(directory), json.loads((directory / "run/plan.json").read_text())["plan"], minutes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _record(evaluation: EvaluationSummary, plan: dict[str, Any], minutes: float) -> dict[str, Any]:
    retained = evaluation.retention.scores[0].improvement.to_dict() if evaluation.retention else None
    return {
        "score": evaluation.scores[0].to_dict(),
        "forgetting": retained,
        "plan": {"steps": plan["totalSteps"], "rate": plan["learningRate"]},
        "minutes": minutes,
    }


def main() -> int:
    """Do the runs; returns 0 when none failed."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.outcomes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default="*", help="the runs to do, such as 'tickets/LoRA/*' (default: all)")
    parser.add_argument("--data", type=Path, help="the directory of the data that others made")
    parser.add_argument("--fresh", action="store_true", help="also do runs that are already recorded")
    arguments = parser.parse_args()
    chosen = [run for run in runs() if fnmatch.fnmatch(run, arguments.runs)]
    if not chosen:
        parser.error(f"no run {arguments.runs!r}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    RECORDS.mkdir(parents=True, exist_ok=True)
    failed = 0
    for run in chosen:
        if tasks.TASKS[run.split("/")[0]].needs_data and not arguments.data:
            print(f"{run}: left out, since it needs --data")
            continue
        if arguments.fresh or not _file(run).is_file():
            outcome = _attempt(run, arguments.data or Path())
            failed += "failed" in outcome
            _file(run).write_text(json.dumps(outcome))
            print(f"{run}: {json.dumps(outcome)}", flush=True)
            PAGE.write_text(render(_recorded()))
    return 1 if failed else 0


def _attempt(run: str, data: Path) -> dict[str, Any]:
    try:
        return tune(run, data)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _recorded() -> dict[str, dict[str, Any]]:
    return {run: json.loads(_file(run).read_text()) for run in runs() if _file(run).is_file()}


def _file(run: str) -> Path:
    return RECORDS / f"{run.replace('/', '--').replace(' ', '-')}.json"


if __name__ == "__main__":
    sys.exit(main())
