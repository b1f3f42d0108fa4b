"""Tool calling from rows to requests: `python3 -m dev.tool_calls DIRECTORY [--steps N]`.

Writes rows with three tools (`dev.data.calls`), tunes SmolLM2 on them with a chat template that shows tools, scores it,
serves it with vLLM by the arguments of a ModelDeployment that names a tool parser, and asks it through OpenAI's client.
All as processes of this machine; about half an hour on two CPUs.
"""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev import matrix, vllm
from dev.data import calls
from dev.smollm2 import cache
from hone.contract.metrics import Metric
from hone.contract.results import EvaluationSummary
from hone.contract.runconfig import RunConfig

if TYPE_CHECKING:
    from openai import OpenAI

TEMPLATE = Path(__file__).with_name("tool_calls.jinja")
ROWS, STEPS, BATCH, RATE = 600, 40, 8, 1e-3
SECONDS = 5400.0
"""Until training has ended, on a loaded machine."""
SEED, SEED_OF_REQUESTS = 1, 2
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "assistant", "namespace": "tools", "uid": "0000"},
    "spec": {
        "model": {"jobRef": {"name": "assistant"}},
        "gpus": 0,
        "runtime": {"args": ["--enable-auto-tool-choice", "--tool-call-parser=hermes", "--max-model-len=1024"]},
    },
}


def tune(model: Path, directory: Path, steps: int = STEPS) -> EvaluationSummary:
    """Prepare, train and finish a run below a directory; returns its scores."""
    from hone_trainer.prepare import prepare

    config = _config(model, directory, steps)
    with matrix.quiet():
        prepare(config)
    if failure := matrix.train(directory, SECONDS):
        raise RuntimeError(f"training failed: {failure}")
    return matrix.finish(directory)


def _config(model: Path, directory: Path, steps: int) -> RunConfig:
    (directory / "output").mkdir(parents=True)
    rows = directory / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in calls.rows(ROWS, SEED)))
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "tools", "name": "assistant", "uid": "0000"},
            "modelName": model.name,
            "objective": "SFT",
            "hyperparameters": {"maxSteps": steps, "globalBatchSize": BATCH, "learningRate": RATE, "packing": False},
            "data": {
                "train": str(rows),
                "validationFraction": 0.0,
                "minSamples": 1,
                "chatTemplate": {"mounted": str(TEMPLATE)},
            },
            "topology": {"gpusPerNode": 0},
            "evaluation": {"maxSamples": 48, "maxNewTokens": 48},
            "mergeOutput": True,
            "paths": {"model": str(model), **{name: str(directory / name) for name in ("workspace", "run", "output")}},
        }
    )
    (directory / "run.json").write_text(config.to_json())
    return config


def requests(count: int) -> list[calls.Row]:
    """Rows that end with a call, of another seed than those of training."""
    rows = (row for row in calls.rows(10 * count, SEED_OF_REQUESTS) if calls.call_of(row))
    return list(itertools.islice(rows, count))


def ask(client: "OpenAI", row: calls.Row, tool_choice: Any = "auto") -> tuple[str, dict[str, Any]] | None:
    """The call with which the served model answers a row's request; None if it answers in words."""
    answer: Any = client.chat.completions.create(
        model=DEPLOYMENT["metadata"]["name"],
        messages=row["messages"][:-1],
        tools=row["tools"],
        tool_choice=tool_choice,
        temperature=0,
        max_tokens=96,
    )
    message = answer.choices[0].message
    if not message.tool_calls:
        return None
    function = message.tool_calls[0].function
    return function.name, json.loads(function.arguments)


def answer_with_result(client: "OpenAI") -> str:
    """What the model answers once a tool has answered: to a city and weather that no training row has together."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Reno"}'}}
    answer: Any = client.chat.completions.create(
        model=DEPLOYMENT["metadata"]["name"],
        messages=[
            {"role": "user", "content": "What is the weather in Reno?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "windy", "degrees": 17}'},
        ],
        tools=calls.TOOLS,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=48,
    )
    return str(answer.choices[0].message.content)


def client_of(url: str) -> "OpenAI":
    """OpenAI's client of a server."""
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0)


def main() -> int:
    """Run it; returns 0 if the tuned model calls tools better than its base, and is served so."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.tool_calls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps (default: {STEPS})")
    arguments = parser.parse_args()
    model = cache.find()
    if model is None:
        parser.error("SmolLM2 is not built: run `.venv/bin/python -m dev.smollm2 build`")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    directory = arguments.directory.resolve()
    evaluation = tune(model, directory, arguments.steps)
    for score in evaluation.scores:
        better = score.improvement
        print(
            f"{score.metric}: {score.base.value:.3g} → {score.tuned.value:.3g} of {score.samples} rows, "
            f"{better.value:+.3g} [{better.lower:.3g}, {better.upper:.3g}]",
            flush=True,
        )
    with vllm.serving(DEPLOYMENT, directory / "output/artifact", directory) as url:
        client, rows = client_of(url), requests(20)
        right = sum(ask(client, row) == calls.call_of(row) for row in rows)
        print(f"served, tool_choice auto: {right} of {len(rows)} calls are right")
        print(f"after a tool's result: {answer_with_result(client)}")
    (calling,) = (score for score in evaluation.scores if score.metric == Metric.TOOL_CALLS)
    return 0 if calling.improvement.lower > 0 and 2 * right > len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
