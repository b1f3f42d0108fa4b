"""How objectives whose models write text are scored: base and tuned model answer the same test rows."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.report import Sample
from hone.contract.runconfig import RunConfig
from hone.contract.settings import MAX_MINUTES, DataFormat
from hone_trainer.data.prepared import chosen_rows, scored_rows
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.inference import division
from hone_trainer.models.loading import load_model
from hone_trainer.models.stops import stop_as_served
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores import rows as scoring
from hone_trainer.scores.affordable import affordable
from hone_trainer.scores.compare import compare, compare_losses, endless
from hone_trainer.scores.evaluated import SAMPLES, Evaluated, Pair
from hone_trainer.scores.figures import telling_rows

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared

Score = Callable[..., scoring.RowScores]

logger = logging.getLogger(__name__)


def evaluate(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: "torch.dtype"
) -> Evaluated:
    """Score the exported model against its base.

    Args:
        config, planned, prepared: the run.
        test: the test rows to score.
        directory: the artifact.
        dtype: the data type it will be served in.
    """
    if planned.dataset.format == DataFormat.TEXT:
        base, tuned, test = both(config, planned, test, directory, dtype, scoring.text_rows, 0, most_seconds(config))
        evaluation, notes, figures = compare_losses(base, tuned)
        return Evaluated(evaluation, notes, [], figures=figures, rows=test)
    limit = config.evaluation.max_new_tokens
    base, tuned, test = both(config, planned, test, directory, dtype, scoring.score_rows, limit, most_seconds(config))
    tokenizer = load_tokenizer(directory)
    references = test["reference"][:]
    lengths = [len(ids) for ids in tokenizer(references, add_special_tokens=False)["input_ids"]] if references else []
    evaluation, notes, figures = compare(base, tuned, references, lengths, limit, config.evaluation.metrics)
    notes += endless(base, tuned, limit)
    main = next((each for each in figures if evaluation.scores and each.metric == evaluation.scores[0].metric), None)
    samples = [
        Sample(
            prompt=test["prompt"][row],
            reference=references[row],
            base=base.answers[row],
            tuned=tuned.answers[row],
            gain=float(main.gains()[row]) if main else None,
        )
        for row in telling_rows(main, len(references), SAMPLES)
    ]
    pairs = [Pair(*texts) for texts in zip(test["prompt"][:], references, base.answers, tuned.answers, strict=True)]
    return Evaluated(evaluation, notes, samples, figures=figures, rows=test, pairs=pairs)


def most_seconds(config: RunConfig) -> float:
    """Most time for scoring both models on the test rows."""
    return 60.0 * (config.evaluation.max_minutes or MAX_MINUTES)


def both(
    config: RunConfig,
    planned: PlanFile,
    rows: "Dataset",
    directory: Path,
    dtype: "torch.dtype",
    score: Score,
    max_new_tokens: int,
    seconds: float | None = None,
) -> "tuple[scoring.RowScores, scoring.RowScores, Dataset]":
    """Figures of the base and of the exported model, and the rows that they are of.

    Args:
        config, planned, directory, dtype: as in `evaluate`.
        rows: the test rows to score.
        score: what gives a model's figures: `score_rows` or `answer_rows` of `scores.rows`.
        max_new_tokens: most tokens of an answer.
        seconds: most time for both models, for which rows are left out; None: as long as all rows take.
    """
    began = time.monotonic()
    model = METHODS[config.method.type].load(config, CHAT, directory, dtype)
    stop_as_served(model, directory)
    tokenizer = load_tokenizer(directory)
    measure = partial(score, model, tokenizer, max_new_tokens=max_new_tokens, name="speed")
    rows = rows if seconds is None else affordable(rows, measure, seconds)
    tuned = score(model, tokenizer, rows, max_new_tokens, "tuned")
    del model, measure
    left = None if seconds is None else seconds - (time.monotonic() - began)
    base, scored = _score_base(config, planned, rows, dtype, score, max_new_tokens, left)
    # The base may be slower than it was expected to be: one that never ends an answer writes more than the tuned model.
    return (base, tuned, rows) if len(scored) == len(rows) else (base, tuned.at(scored), rows.select(scored))


def _score_base(
    config: RunConfig,
    planned: PlanFile,
    rows: "Dataset",
    dtype: "torch.dtype",
    score: Score,
    max_new_tokens: int,
    seconds: float | None = None,
) -> tuple[scoring.RowScores, list[int]]:
    """The base model's figures, from the workspace's cache where another run on the same data has left them, and the
    indices of the rows that they are of: those that fit into the time, as in `both`."""
    from transformers import AutoModelForCausalLM

    chosen = list(range(len(rows)))
    path, key = _cache(config, planned, rows, dtype, score, max_new_tokens)
    cached = scoring.load_cached(path, key)
    if cached is not None and len(cached.answers) == len(rows):
        logger.info("base scores found", extra={"path": str(path)})
        return cached, chosen
    model = load_model(AutoModelForCausalLM, config.paths.model, dtype=dtype, **division())
    tokenizer = load_tokenizer(config.paths.model)
    if seconds is not None:
        measure = partial(score, model, tokenizer, max_new_tokens=max_new_tokens, name="speed of the base")
        # As `affordable` chooses them.
        chosen = chosen_rows(len(rows), len(affordable(rows, measure, seconds, models=1)))
    rows = rows.select(chosen)
    path, key = _cache(config, planned, rows, dtype, score, max_new_tokens)
    began = time.monotonic()
    scores = score(model, tokenizer, rows, max_new_tokens, "base")
    logger.info("base scored", extra={"seconds": round(time.monotonic() - began, 1), "path": str(path)})
    scoring.save_cached(path, key, scores)
    return scores, chosen


def _cache(
    config: RunConfig, planned: PlanFile, rows: "Dataset", dtype: "torch.dtype", score: Score, max_new_tokens: int
) -> tuple[Path, dict[str, object]]:
    """Where the base's figures of these rows are stored, and what they are of."""
    key = {
        "model": planned.model_digest,
        # Covers tokenizer and chat template.
        "data": planned.dataset.digest,
        # Not their number alone: where time allows fewer than evaluation.maxSamples, they are drawn twice.
        "rows": scored_rows(rows).to_dict(),
        "maxNewTokens": max_new_tokens,
        "figures": score.__name__,
        "dtype": str(dtype),
        "scorer": scoring.SCORER_VERSION,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(config.paths.workspace) / "scores" / f"{digest}.json", key
