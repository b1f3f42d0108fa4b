"""Which objectives, methods and placements work together: run `python3 -m dev.matrix [--cells PATTERN] [--fresh]`.

A cell is an objective with a method and a placement: one process, two processes with DDP, ZeRO-2 or ZeRO-3. Each cell
prepares its data, trains three steps with the launcher, as in a pod, and scores the model. Then each objective's first
example runs unchanged in one process, and the interval of its improvement must be above 0. The result is
`docs/matrix.md`.

Cells that ended as expected are recorded for the current state of the code, so that an interrupted run continues with
the cell that was interrupted. Failed cells run again. Cells with one process run two at a time.
"""

import argparse
import contextlib
import fnmatch
import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from dev import teacher
from dev.basemodel import cache
from dev.data.formats import FORMATS
from dev.data.reviews import reviews
from dev.matrix_page import render
from dev.uv import ROOT, cache_dir
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.results import EvaluationSummary, StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat
from hone.core.finetunejob.resources.runconfig import run_config
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.data import splits
from hone.core.settings import Settings

PAGE = ROOT / "docs/matrix.md"
PLACEMENTS: dict[str, dict[str, int]] = {
    "1 process": {"processesPerNode": 1},
    "DDP": {"processesPerNode": 2, "zeroStage": 0},
    "ZeRO-2": {"processesPerNode": 2, "zeroStage": 2},
    "ZeRO-3": {"processesPerNode": 2, "zeroStage": 3},
}
DATA = {
    DataFormat.MESSAGES: "chat",
    DataFormat.TEXT_LABEL: "text-label",
    DataFormat.PREFERENCE: "preference",
    DataFormat.UNPAIRED_PREFERENCE: "unpaired-preference",
    DataFormat.PROMPT: "prompt",
}
"""The generator's name of each format; a cell uses the first format of its objective."""
ANSWERS: dict[str, object] = {"maxCompletionLength": 4}
REWARDED: dict[str, object] = {**ANSWERS, "generations": 2}
"""Settings of objectives whose models write answers themselves, and whose answers are rewarded."""
EXAMPLE = "example"
ROWS, STEPS, TEST_ROWS, SECONDS = 300, 3, 24, 900
AT_ONCE = 2
"""Cells that one process runs at the same time."""

CODE = ("operator/src/hone/contract", "trainer-image/src", "dev/data", "examples")
"""What a cell's outcome depends on."""


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: `ran`, `improved`, `refused`, `unimproved` or `failed`, and a sentence about it."""

    result: str
    words: str = ""
    seconds: float = 0.0


def cells() -> list[str]:
    """All of them, as objective/method/placement, and each objective's example."""
    tried = [f"{o.value}/{m.value}/{place}" for o in OBJECTIVES for m in MethodType for place in PLACEMENTS]
    return tried + [f"{objective.value}/{EXAMPLE}" for objective in OBJECTIVES]


def config_of(cell: str, base: Path, directory: Path) -> RunConfig:
    """A cell's run below a directory, its data written there."""
    objective, *place = cell.split("/")
    if place == [EXAMPLE]:
        return _of_example(Objective(objective), base, directory)
    method, placement = place
    rows = directory / "rows.jsonl"
    facts = OBJECTIVES[Objective(objective)]
    convert = FORMATS[DATA[facts.data.formats[0]]]
    rows.write_text("".join(json.dumps(convert(review)) + "\n" for review in reviews(ROWS, seed=5)))
    written = REWARDED if facts.needs.reward else ANSWERS if facts.generates else {}
    return RunConfig.from_dict(
        {
            "job": {"namespace": "matrix", "name": "cell", "uid": "0"},
            "modelName": "reviews-base",
            "objective": objective,
            "method": {"type": method},
            "hyperparameters": {"maxSteps": STEPS, "globalBatchSize": 4, **written},
            "data": {"train": str(rows), "minSamples": 1},
            "reward": {"functions": [{"name": "ExactMatch"}]} if facts.needs.reward else None,
            "topology": {"gpusPerNode": 0, **PLACEMENTS[placement]},
            "evaluation": {"maxSamples": TEST_ROWS, "maxNewTokens": 4},
            "paths": _paths(Objective(objective), base, directory),
        }
    )


def _of_example(objective: Objective, base: Path, directory: Path) -> RunConfig:
    """The first example of an objective that has one pod and begins with no other job's model, as the operator runs it.

    Of jobs in one file that wait for each other, the last one is what it shows.
    """
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        jobs = [job for job in yaml.safe_load_all(path.read_text()) if job["kind"] == "FineTuneJob"]
        for manifest in jobs[-1:]:
            if manifest["spec"].get("objective", "SFT") != objective.value:
                continue
            manifest["metadata"] |= {"namespace": "matrix", "uid": "0"}
            run = Run(manifest, Settings())
            if run.compute.nodes > 1 or not run.spec.model.claim:
                continue
            config = run_config(run).to_dict()
            # Copied, as a pod mounts them: nothing may lead out of a volume.
            data = {"mounts": str(directory / "data")}
            for split, source in splits(run).items():
                if source.config_map:
                    data[split] = str(directory / "data" / split / source.config_map.key)
                    Path(data[split]).parent.mkdir(parents=True)
                    shutil.copy(ROOT / "examples/data" / source.config_map.key, data[split])
            for function in (config.get("reward") or {}).get("functions", []):
                if "source" in function:
                    function["mounted"] = str(ROOT / "examples/data" / Path(function["source"]).name)
                    function["file"] = str(directory / "run/rewards" / function["source"])
            paths = _paths(objective, base, directory)
            return RunConfig.from_dict({**config, "data": {**config["data"], **data}, "paths": paths})
    raise LookupError(f"no example in one pod of objective {objective.value}")


def _paths(objective: Objective, base: Path, directory: Path) -> dict[str, str]:
    (directory / "output").mkdir()
    places = {name: str(directory / name) for name in ("workspace", "run", "output")}
    if OBJECTIVES[objective].needs.teacher:
        places["teacher"] = str(teacher.place(base))
    return {"model": str(base), **places}


def run(cell: str, base: Path) -> Outcome:
    """Try one cell."""
    from hone_trainer.prepare import prepare
    from hone_trainer.protocol.errors import BadInput

    directory = Path(tempfile.mkdtemp(prefix="hone-matrix-"))
    try:
        if OBJECTIVES[Objective(cell.split("/")[0])].needs.teacher:
            teacher.ensure(base)
        began = time.monotonic()
        config = config_of(cell, base, directory)
        (directory / "run.json").write_text(config.to_json())
        with quiet():
            prepare(config)
        if failure := train(directory):
            return Outcome("failed", failure)
        return _judge(cell, finish(directory), time.monotonic() - began)
    except BadInput as refusal:
        return Outcome("refused", f"`{refusal.field}`: {refusal.message}. {refusal.hint}")
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def quiet() -> contextlib.AbstractContextManager[object]:
    """Keep what steps log in this process away from the lines that report how cells ended."""
    return contextlib.redirect_stdout(io.StringIO())


def train(directory: Path, seconds: float = SECONDS) -> str:
    """Run the launcher to its end, or for so many seconds; returns what failed, or an empty text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "tmp").mkdir()
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HONE_RUN_CONFIG": str(directory / "run.json"),
        "HONE_TERMINATION_LOG": str(directory / "end"),
        "HONE_METRICS_PORT": str(port),
        "TMPDIR": str(directory / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "hone_trainer.launch"],
            env={**os.environ, **environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            # The ranks are the launcher's children, in its group or in one of their own that ends with it.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code == 0:
        return ""
    last = log.read_text(errors="replace")[-3000:]
    if code == -1:
        return f"did not end in {seconds:g} s: {last}"
    verdict = StepResult.model_validate_json((directory / "end").read_text()).verdict
    return f"{verdict.message if verdict else 'no verdict'}\n{last}"


def finish(directory: Path) -> EvaluationSummary:
    """Export and score in this process, which has its libraries loaded from the cells before."""
    from hone_trainer import finish as step

    os.environ.update({"HONE_RUN_CONFIG": str(directory / "run.json"), "HONE_TERMINATION_LOG": str(directory / "end")})
    with quiet():
        step.main()
    ended = StepResult.model_validate_json((directory / "end").read_text())
    if ended.evaluation is None:
        raise RuntimeError(f"finish: {ended.verdict.message if ended.verdict else 'no scores'}")
    return ended.evaluation


def _judge(cell: str, evaluation: EvaluationSummary, seconds: float) -> Outcome:
    if not evaluation.scores:
        return Outcome("failed", "nothing was scored")
    score = evaluation.scores[0]
    text = f"{score.metric} {score.base.value:.3g} → {score.tuned.value:.3g}"
    if not cell.endswith(f"/{EXAMPLE}"):
        return Outcome("ran", text, seconds)
    better = score.improvement
    text += f" ({better.value:+.3g} [{better.lower:.3g}, {better.upper:.3g}], {score.samples} rows)"
    return Outcome("improved" if better.lower > 0 else "unimproved", text, seconds)


def run_all(left: list[str], base: Path) -> Iterator[tuple[str, Outcome]]:
    """Run cells, and yield each as it ends."""
    single = [cell for cell in left if processes(cell) == 1]
    # Workers of their own: environment variables tell a launcher's run to finish.
    with multiprocessing.get_context("spawn").Pool(AT_ONCE, _end_by_signal) as workers:
        yield from workers.imap_unordered(functools.partial(_named, base=base), single)
        # Left to the end of the block, they would be ended by a signal.
        workers.close()
        workers.join()
    for cell in left:
        if cell not in single:
            yield cell, run(cell, base)


def processes(cell: str) -> int:
    """How many ranks a cell has; an example is run in one process."""
    return PLACEMENTS.get(cell.split("/")[-1], {}).get("processesPerNode", 1)


def _named(cell: str, base: Path) -> tuple[str, Outcome]:
    return cell, run(cell, base)


def _end_by_signal() -> None:
    """Stops the launcher that is running, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def state(folders: Iterable[str] = CODE) -> str:
    """A digest of the present code's files."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Memory:
    """The cells' outcomes, in one file of the cache per cell and state of the tree."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, cell: str) -> Outcome | None:
        """A cell's outcome, or None."""
        try:
            return Outcome(**json.loads(self._file(cell).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, cell: str, outcome: Outcome) -> None:
        """Remember an outcome."""
        self._file(cell).write_text(json.dumps(asdict(outcome)))

    def _file(self, cell: str) -> Path:
        return self._folder / f"{cell.replace('/', '--').replace(' ', '-')}.json"


def todo(chosen: list[str], memory: Memory, *, fresh: bool) -> Iterator[str]:
    """The cells to run: those that are not remembered as having ended as they should."""
    for cell in chosen:
        known = memory.load(cell)
        if fresh or known is None or not as_it_should(cell, known):
            yield cell


def as_it_should(cell: str, outcome: Outcome) -> bool:
    """Whether a cell has ended well: an example by an improvement, any other unless it failed."""
    return outcome.result == "improved" if cell.endswith(f"/{EXAMPLE}") else outcome.result in ("ran", "refused")


def main() -> int:
    """Run the cells; returns 0 when none failed and every example has improved its metric."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.matrix", description=__doc__)
    parser.add_argument(
        "--cells", default="*", help="the cells to run, such as 'DPO/*' or '*/LoRA/ZeRO-3' (default: all)"
    )
    parser.add_argument("--fresh", action="store_true", help="also run cells that are already recorded")
    parser.add_argument("--list", action="store_true", help="list the cells, but do not run them")
    arguments = parser.parse_args()
    _end_by_signal()
    chosen = [cell for cell in cells() if fnmatch.fnmatch(cell, arguments.cells)]
    if not chosen:
        parser.error(f"no cell {arguments.cells!r}")
    memory = Memory(cache_dir() / "matrix" / state())
    if arguments.list:
        for cell in chosen:
            known = memory.load(cell)
            print(cell, known.result if known else "")
        return 0
    base = cache.find()
    if base is None:
        sys.exit("error: there is no base model yet: make images, or python3 -m dev.basemodel build")
    for cell, outcome in run_all(list(todo(chosen, memory, fresh=arguments.fresh)), base):
        memory.save(cell, outcome)
        print(f"{cell}: {outcome.result} in {outcome.seconds:.0f} s. {outcome.words}", flush=True)
    outcomes: dict[str, Any] = {cell: past for cell in cells() if (past := memory.load(cell))}
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(outcomes, list(PLACEMENTS)))
    bad = [cell for cell in chosen if not ((past := memory.load(cell)) and as_it_should(cell, past))]
    print(f"== {len(chosen) - len(bad)} cells as they should be, {len(bad)} not: {', '.join(bad) or 'none'} ==")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
