"""The artifact: the trained weights with all that is served with them, and its model card."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from hone.contract.plan import DatasetSummary, Plan
from hone.contract.report import REPORT_FILE
from hone.contract.results import EvaluationSummary, Interval
from hone.contract.runconfig import RunConfig
from hone_trainer.methods import METHODS
from hone_trainer.models.chat_template import run_tokenizer, serve_template
from hone_trainer.models.merging import copy_served_files
from hone_trainer.models.stops import add_stops
from hone_trainer.models.untrusted import CONFIG, CONFIG_BYTES
from hone_trainer.objectives import components
from hone_trainer.protocol.volumes import read_json
from hone_trainer.training.checkpoint import TRAINING_ARGS_FILE

CARD_FILE = "README.md"


def export(config: RunConfig, checkpoint: Path, directory: Path, ends: Iterable[int] = ()) -> str:
    """Write a checkpoint's weights and what is served with them into the empty `directory`.

    Args:
        config: the run.
        checkpoint: the last one.
        directory: of the artifact.
        ends: the tokens that end a trained answer, at which the artifact is to stop.

    Returns:
        Adapter or Model.
    """
    kind = METHODS[config.method.type].export(config, components(config.objective).architecture, checkpoint, directory)
    copy_served_files(Path(config.paths.model), directory, "spec.model")
    serve_template(config, directory)
    add_stops(directory, Path(config.paths.model), run_tokenizer(config), ends)
    (directory / TRAINING_ARGS_FILE).unlink(missing_ok=True)
    return kind


def max_model_length(config: RunConfig) -> int | None:
    """Longest context in tokens that the base model was made for."""
    settings = read_json(Path(config.paths.model), CONFIG, "spec.model", CONFIG_BYTES)
    text = settings.get("text_config") or settings
    length: int | None = text.get("max_position_embeddings")
    return length


def write_card(
    directory: Path,
    config: RunConfig,
    plan: Plan,
    dataset: DatasetSummary,
    kind: str,
    evaluation: EvaluationSummary | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the model card: what this is, what it was made from and, if it has been scored, how good it is."""
    library = "peft" if kind == "Adapter" else "transformers"
    text = f"""---
base_model: {json.dumps(config.model_name.removeprefix("hf://"))}
library_name: {library}
pipeline_tag: {components(config.objective).architecture.pipeline_tag}
---

# {config.job.name}

{kind} trained from `{config.model_name}` with objective {config.objective} and method \
{config.method.type}.

## Training

{dataset.train_rows} rows ({dataset.tokens} tokens), {plan.total_steps} steps of {plan.global_batch_size} rows \
({plan.epochs:g} epochs), learning rate {plan.learning_rate:g} ({plan.scheduler}), rows of up to \
{plan.sequence_length} tokens, seed {config.hyperparameters.seed}. Data digest: `{dataset.digest}`.

## Scores on the test split

{_scores(evaluation, notes)}
"""
    (directory / CARD_FILE).write_text(text)


def _scores(evaluation: EvaluationSummary | None, notes: Sequence[str]) -> str:
    if evaluation is None:
        return f"{REPORT_FILE} and {CARD_FILE} next to this directory have them: a model can be scored again."
    return f"""Two-sided 95 % confidence intervals in brackets. An improvement above 0 is better, whatever the metric.

{_score_table(evaluation)}
{chr(10).join(notes)}"""


def _score_table(evaluation: EvaluationSummary) -> str:
    """The scores as a table in Markdown; empty without scores."""
    if not evaluation.scores:
        return ""
    rows = "\n".join(
        f"| {score.metric} | {'higher' if score.higher_is_better else 'lower'} | {score.samples} "
        f"| {_figure(score.base)} | {_figure(score.tuned)} | {_figure(score.improvement)} |"
        for score in evaluation.scores
    )
    return f"| metric | better | rows | base | tuned | improvement |\n|---|---|---|---|---|---|\n{rows}\n"


def _figure(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.lower:.4g}, {interval.upper:.4g}]"
