"""A check of data and model without a cluster: what a job's prepare step would say of them.

    python -m hone_trainer.check DATA --model DIR [--objective DPO] [--test FILE] [...]
    python -m hone_trainer.check --source a=DATA weight=2 --source b=DATA --model DIR [...]

Runs the prepare step on local files, in a temporary directory that is removed at the end, and prints its result for
people. Exit code 0: a job would accept the data. 1: it would refuse them. 2: the command line is wrong. 3: the check
itself failed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hone.contract.exits import FailureClass
from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.results import StepResult
from hone.contract.rewards import REWARDS
from hone.contract.runconfig import DataPart, RunConfig
from hone.contract.settings import ChatTemplateName, DataFormat, Reasoning, Role, SplitBy, TrainOn
from hone.contract.verdict import Verdict
from hone_trainer import prepare
from hone_trainer.protocol import limits
from hone_trainer.protocol.findings import refusal, report
from hone_trainer.protocol.planfile import PlanFile, load_plan
from hone_trainer.protocol.results import TERMINATION_LOG_ENV
from hone_trainer.protocol.runconfig import RUN_CONFIG_ENV

ACCEPTED, REFUSED, FAILED, INTERRUPTED = 0, 1, 3, 130
"""Exit codes, in addition to argparse's 2 for a wrong command line."""
_LOG_LINES = 20
_PAIRS = {"column": "columns", "role": "roles"}
"""Words of `--source` that set one entry of a field, such as `role.customer=user`."""


def _chat_template(word: str) -> dict[str, str]:
    """One of Hone's templates by its name, else the file of one."""
    return {"name": word} if word in [each.value for each in ChatTemplateName] else {"mounted": _absolute(word)}


def _absolute(path: str) -> str:
    """As pods have paths; links stay, so that they are followed as there."""
    return str(Path.cwd() / path)


@dataclass(frozen=True)
class _Option:
    """An option that is one field of the spec.

    Attributes:
        flag: its name.
        place: section and key of the RunConfig.
        help: what it means.
        choices: the values that it may have; empty: any.
        type: from the word on the command line to the value.
        metavar: what the help calls its value.
    """

    flag: str
    place: tuple[str, str]
    help: str
    choices: Sequence[str] = ()
    type: Callable[[str], object] = str
    metavar: str | None = None


OPTIONS = (
    _Option("--validation", ("data", "validation"), "validation rows of their own", type=_absolute, metavar="PATH"),
    _Option("--test", ("data", "test"), "test rows of their own", type=_absolute, metavar="PATH"),
    _Option(
        "--validation-fraction",
        ("data", "validationFraction"),
        "share of the rows to hold out for validation, from 0 to 0.5 (default: 0.1)",
        type=float,
        metavar="SHARE",
    ),
    _Option(
        "--test-fraction",
        ("data", "testFraction"),
        "share of the rows to hold out for the test, up to 0.5 (default: 0.1)",
        type=float,
        metavar="SHARE",
    ),
    _Option(
        "--format", ("data", "format"), "how each row is written (default: Auto)", [each.value for each in DataFormat]
    ),
    _Option("--train-on", ("data", "trainOn"), "which tokens are learned", [each.value for each in TrainOn]),
    _Option(
        "--chat-template",
        ("data", "chatTemplate"),
        "a file with the chat template to use instead of the model's own, or ChatML",
        type=_chat_template,
        metavar="FILE",
    ),
    _Option("--system-prompt", ("data", "systemPrompt"), "system message of conversations without one", metavar="TEXT"),
    _Option("--reasoning", ("data", "reasoning"), "whether reasoning is learned", [each.value for each in Reasoning]),
    _Option("--split-by", ("data", "splitBy"), "which rows are held out together", [each.value for each in SplitBy]),
    _Option(
        "--max-bad-rows",
        ("data", "maxBadRows"),
        "largest share of rows that may be left out, from 0 to 1 (default: 0.1)",
        type=float,
        metavar="SHARE",
    ),
    _Option(
        "--sequence-length",
        ("hyperparameters", "sequenceLength"),
        "most tokens of a row (default: of the longest row, at most the model's context)",
        type=int,
        metavar="TOKENS",
    ),
    _Option("--seed", ("hyperparameters", "seed"), "seed of the rows' order (default: 42)", type=int, metavar="NUMBER"),
    _Option(
        "--teacher",
        ("paths", "teacher"),
        "Distillation: directory of the model to learn from",
        type=_absolute,
        metavar="DIR",
    ),
    _Option(
        "--reward-model",
        ("paths", "rewardModel"),
        "GRPO, RLOO: directory of a model that scores",
        type=_absolute,
        metavar="DIR",
    ),
)
"""Options that set one field each. What is left out has the default of a job."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check. Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    values = _sections(parser, options)
    # Nothing of it is left, however the check ends, unless it is killed outright.
    with tempfile.TemporaryDirectory(prefix="hone-check-") as directory:
        return _check(Path(directory), values, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hone_trainer.check",
        description="Check training data as Hone's prepare step does, without a cluster: which rows can be used, how "
        "they are split, and what is learned of them. Nothing is trained, and no file is changed.",
        epilog="Exit code: 0 the data can be used, 1 a job with them would be refused, 2 wrong command line, 3 the "
        "check itself failed. Text between « and » in the example is learned. Prepared rows are written to a "
        "temporary directory first: set TMPDIR if it has too little space.",
    )
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help="training rows: a file, a directory or a glob in quotes"
    )
    parser.add_argument(
        "--source",
        action="append",
        nargs="+",
        metavar=("NAME=PATH", "KEY=VALUE"),
        help="instead of DATA, one of several sources of training rows, with what is its own: format, weight, maxRows, "
        "column.NAME=YOURS, role.YOURS=ROLE; can be repeated",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="directory of the base model (save_pretrained)")
    parser.add_argument(
        "--objective", default=Objective.SFT.value, choices=[each.value for each in Objective], help="(default: SFT)"
    )
    parser.add_argument(
        "--method", default=MethodType.LORA.value, choices=[each.value for each in MethodType], help="(default: LoRA)"
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=YOURS",
        help="Hone's name of a column and the name in your rows, such as prompt=question; can be repeated",
    )
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="YOURS=ROLE",
        help=f"a role or sender in your messages and Hone's role ({', '.join(Role)}), such as agent=assistant; can be "
        "repeated",
    )
    parser.add_argument(
        "--reward",
        choices=[name.value for name, facts in REWARDS.items() if not facts.matches],
        help="GRPO, RLOO: a built-in reward function",
    )
    for option in OPTIONS:
        parser.add_argument(
            option.flag, type=option.type, choices=option.choices or None, help=option.help, metavar=option.metavar
        )
    parser.add_argument("--json", action="store_true", help="print dataset and plan as a job's status has them")
    parser.add_argument("--verbose", action="store_true", help="print the log of the step to standard error")
    return parser


def _sections(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The sections of the RunConfig that the command line sets."""
    if not Path(options.model).is_dir():
        parser.error(f"--model: {options.model} is no directory")
    sections: dict[str, dict[str, Any]] = {
        "data": _training_rows(parser, options),
        "hyperparameters": {},
        "paths": {"model": _absolute(options.model)},
        "method": {"type": options.method},
    }
    for option in OPTIONS:
        value = getattr(options, option.flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            section, key = option.place
            sections[section][key] = value
    if columns := _pairs(parser, options.column, "--column: write NAME=YOURS, such as prompt=question"):
        sections["data"]["columns"] = columns
    if roles := _pairs(parser, options.role, "--role: write YOURS=ROLE, such as agent=assistant"):
        sections["data"]["roles"] = _checked_roles(parser, "--role", roles)
    if options.reward or options.reward_model:
        sections["reward"] = {"functions": [{"name": options.reward}] if options.reward else []}
    return sections


def _training_rows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """Where the training rows are, as the RunConfig has it."""
    if (options.data is None) == (options.source is None):
        parser.error("name the training rows: either DATA, or --source for each of several")
    if options.data is not None:
        return {"train": _absolute(options.data)}
    sources = [_source(parser, words) for words in options.source]
    if len({source["name"] for source in sources}) < len(sources):
        parser.error("--source: give each source a name of its own")
    return {"train": sources[0]["path"], "sources": sources}


def _source(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Any]:
    """One of several sources of training rows."""
    fields = {str(field.alias) for field in DataPart.model_fields.values()}
    keys = sorted(fields - {"name", "path", *_PAIRS.values()})
    help = f"--source: write NAME=PATH, then perhaps {', '.join(f'{key}=…' for key in keys)}, column.NAME=YOURS or "
    help += "role.YOURS=ROLE"
    (name, path), *others = _pairs(parser, words, help).items()
    source: dict[str, Any] = {"name": name, "path": _absolute(path)}
    for key, value in others:
        kind, dot, entry = key.partition(".")
        if dot and entry and kind in _PAIRS:
            source.setdefault(_PAIRS[kind], {})[entry] = value
        elif key in keys:
            source[key] = value
        else:
            parser.error(help)
    _checked_roles(parser, "--source", source.get("roles", {}))
    try:
        return DataPart.from_dict(source).to_dict()
    except ValueError:
        parser.error(f"--source {name}: one of its values is wrong: {' '.join(words[1:])}")


def _pairs(parser: argparse.ArgumentParser, words: Sequence[str], help: str) -> dict[str, str]:
    """Words of the kind a=b."""
    pairs = dict(word.partition("=")[::2] for word in words)
    if not all(name and value for name, value in pairs.items()):
        parser.error(help)
    return pairs


def _checked_roles(parser: argparse.ArgumentParser, option: str, roles: dict[str, str]) -> dict[str, str]:
    if unknown := sorted({*roles.values()} - {*Role}):
        parser.error(f"{option}: {unknown[0]} is no role; the roles are {', '.join(Role)}")
    return roles


def _check(directory: Path, sections: dict[str, dict[str, Any]], options: argparse.Namespace) -> int:
    """Run the step below a directory, and print what it found."""
    config = _run_config(directory, sections, options.objective)
    config_file, result_file, log_file = directory / "run.json", directory / "result.json", directory / "log"
    config_file.write_text(config.to_json())
    os.environ |= {RUN_CONFIG_ENV: str(config_file), TERMINATION_LOG_ENV: str(result_file)}
    code = limits.supervised(prepare.STEP, partial(_step, None if options.verbose else log_file), prepare.SECONDS)
    try:
        result = StepResult.from_dict(json.loads(result_file.read_bytes()))
    except (OSError, ValueError):
        print(f"The check was interrupted (its step ended with {code}).", file=sys.stderr)
        return INTERRUPTED
    planned = load_plan(config)
    if result.verdict is None and planned is not None:
        print(_as_json(result, planned) if options.json else report(planned.dataset, planned.plan))
        return ACCEPTED
    return _end(result.verdict, log_file, as_json=options.json)


def _run_config(directory: Path, sections: dict[str, dict[str, Any]], objective: str) -> RunConfig:
    paths = {
        **sections.pop("paths"),
        "workspace": str(directory / "workspace"),
        "run": str(directory / "workspace" / "run"),
        "output": str(directory / "output"),
    }
    job = {"namespace": "local", "name": "check", "uid": "local"}
    content = {"job": job, "modelName": Path(paths["model"]).name, "objective": objective, "paths": paths, **sections}
    return RunConfig.from_dict(content)


def _step(log_file: Path | None) -> int:
    """The step itself, in a process of its own, whose log goes to a file or to standard error."""
    if log_file is None:
        os.dup2(2, 1)
    else:
        with log_file.open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    return prepare.main(measures_workspace=False)


def _as_json(result: StepResult, planned: PlanFile) -> str:
    return json.dumps({"dataset": planned.dataset.to_dict(), "plan": planned.plan.to_dict()}, ensure_ascii=False)


def _end(verdict: Verdict | None, log_file: Path, *, as_json: bool) -> int:
    """Print why there is no plan. Returns the exit code."""
    if verdict is not None and verdict.failure_class is FailureClass.BAD_INPUT:
        print(json.dumps({"verdict": verdict.to_dict()}, ensure_ascii=False) if as_json else refusal(verdict))
        return REFUSED
    print(f"The check failed: {verdict.message if verdict else 'it gave no result'}", file=sys.stderr)
    if verdict and verdict.hint:
        print(verdict.hint, file=sys.stderr)
    if log_file.exists():
        lines = log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        print("\n".join(["The end of its log:", *lines]), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
