"""The model card: what the model is, what it was made from, how good it is, and what was left out."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from hone.contract.plan import DatasetSummary
from hone.contract.report import REPORT_FILE
from hone.contract.results import Bounded, EvaluationSummary, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.objectives import components
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.protocol.volumes import read_file

CARD_FILE = "README.md"
_CARD_BYTES = 1 << 20
_HUB = "hf://"
_LICENCE_KEYS = ("license", "license_name", "license_link")
_PLAIN = re.compile(r"[\w.+:/-]{1,200}", re.ASCII)


def write_card(
    directory: Path,
    config: RunConfig,
    planned: PlanFile,
    kind: str,
    evaluation: EvaluationSummary | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the card; without scores where the model has not been scored yet."""
    plan, dataset = planned.plan, planned.dataset
    text = f"""---
{_front_matter(config, kind)}---

# {config.job.name}

{kind} trained from `{config.model_name}` with objective {config.objective} and method {config.method.type}.

## Base model

{_base(config, planned)}

## Training

{dataset.train_rows} rows ({dataset.tokens} tokens), {plan.total_steps} steps of {plan.global_batch_size} rows \
({plan.epochs:g} epochs), learning rate {plan.learning_rate:g} ({plan.scheduler}), rows of up to \
{plan.sequence_length} tokens, seed {config.hyperparameters.seed}. Data digest: `{dataset.digest}`.

## Left out

{_left_out(dataset)}

## Scores on the test split

{_scores(evaluation, notes)}
"""
    (directory / CARD_FILE).write_text(text)


def licence_of(model: Path) -> dict[str, str]:
    """The licence keys in the front matter of a model's card; empty where it has none that can be read."""
    try:
        text = read_file(model, CARD_FILE, "spec.model", _CARD_BYTES).decode()
        begin, front, *_ = text.split("---\n", 2)
        matter = yaml.safe_load(front) if not begin.strip() else None
    except (OSError, BadInput, ValueError, RecursionError, yaml.YAMLError):
        return {}
    if not isinstance(matter, dict):
        return {}
    values = {key: matter.get(key) for key in _LICENCE_KEYS}
    return {key: value for key, value in values.items() if isinstance(value, str) and _PLAIN.fullmatch(value)}


def _front_matter(config: RunConfig, kind: str) -> str:
    """What the Hub reads. A base that is not on the Hub is only in the text: its name may be that of another model."""
    architecture, licence = components(config.objective).architecture, licence_of(Path(config.paths.model))
    fields: dict[str, object] = {**licence}
    if config.model_name.startswith(_HUB):
        fields |= {
            "base_model": config.model_name.removeprefix(_HUB),
            "base_model_relation": "adapter" if kind == "Adapter" else "finetune",
        }
    fields |= {
        "library_name": "peft" if kind == "Adapter" else "transformers",
        "pipeline_tag": architecture.pipeline_tag,
        "tags": ["hone", str(config.objective).lower(), str(config.method.type).lower()],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items())


def _base(config: RunConfig, planned: PlanFile) -> str:
    download = next((each for each in planned.downloads if each.field == "spec.model"), None)
    commit = f", commit `{download.revision}`" if download else ""
    licence = licence_of(Path(config.paths.model))
    named = licence.get("license_name") or licence.get("license")
    link = f" ({licence['license_link']})" if "license_link" in licence else ""
    terms = (
        f"Its licence, by its own card: {named}{link}."
        if named
        else "Its directory has no card that names its licence: check its terms before you pass this model on."
    )
    return f"`{config.model_name}`{commit}. Digest of its files: `{planned.model_digest}`. {terms}"


def _left_out(dataset: DatasetSummary) -> str:
    return "\n".join(f"- {line}" for line in _omissions(dataset)) or "No row of the data was left out or truncated."


def _omissions(dataset: DatasetSummary) -> Iterator[str]:
    """What was not learned from: numbers alone, because reasons may name columns and classes."""
    bad = sum(rows.count for rows in dataset.bad_rows)
    if bad:
        yield f"{bad} rows that could not be used"
    if dataset.duplicate_rows:
        yield f"{dataset.duplicate_rows} rows that another split has as well"
    if dataset.truncated_rows:
        yield f"the ends of {dataset.truncated_rows} training rows that were too long"


def _scores(evaluation: EvaluationSummary | None, notes: Sequence[str]) -> str:
    if evaluation is None:
        return f"{REPORT_FILE} and {CARD_FILE} next to this directory have them: a model can be scored again."
    return f"""Two-sided 95 % confidence intervals in brackets. An improvement above 0 is better, whatever the metric.

{_score_table(evaluation.scores)}
{_others(evaluation)}{chr(10).join(notes)}"""


def _others(evaluation: EvaluationSummary) -> str:
    """The scores of groups and of retention; empty where there are none."""
    text, groups, retention = "", evaluation.groups, evaluation.retention
    if groups is not None:
        rows = "\n".join(
            f"| {group.name} | {group.samples} | {_figure(group.tuned)} | {_figure(group.improvement)} |"
            for group in groups.groups
        )
        text += f"{groups.metric} by `{groups.column}`, the worst groups first. {groups.count} groups have 30 rows or "
        text += f"more; {groups.insufficient} have fewer, and no score.\n\n"
        text += f"| group | rows | tuned | improvement |\n|---|---|---|---|\n{rows}\n\n"
    if retention is not None:
        text += f"Retention, questions of the set {retention.set}:\n\n{_score_table(retention.scores)}\n"
    for benchmark in evaluation.benchmarks or []:
        text += f"On the benchmark {benchmark.name}:\n\n{_score_table(benchmark.scores)}\n"
    if (judge := evaluation.judge) is not None:
        text += f"Preferred by {judge.model}, each pair of answers in both orders:\n\n{_score_table(judge.scores)}\n"
        text += "".join(f"- {warning}\n" for warning in judge.warnings or [])
    return text + "".join(f"- {problem}\n" for problem in evaluation.problems or [])


def _score_table(scores: Sequence[Score]) -> str:
    """The scores as a table in Markdown; empty without scores."""
    if not scores:
        return ""
    rows = "\n".join(
        f"| {score.metric} | {'higher' if score.higher_is_better else 'lower'} | {score.samples} "
        f"| {_figure(score.base)} | {_figure(score.tuned)} | {_figure(score.improvement)} |"
        for score in scores
    )
    return f"| metric | better | rows | base | tuned | improvement |\n|---|---|---|---|---|---|\n{rows}\n"


def _figure(interval: Bounded) -> str:
    return f"{interval.value:.4g} [{interval.lower:.4g}, {interval.upper:.4g}]"
