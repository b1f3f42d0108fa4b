"""How objectives whose models write text are scored: base and tuned model answer the same test rows."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.report import Sample
from hone.contract.runconfig import RunConfig
from hone_trainer.methods import METHODS
from hone_trainer.models import load_tokenizer
from hone_trainer.planfile import PlanFile
from hone_trainer.scores import rows as scoring
from hone_trainer.scores.compare import compare
from hone_trainer.scores.evaluated import SAMPLES, Evaluated

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared

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
    limit = config.evaluation.max_new_tokens
    tokenizer = load_tokenizer(directory)
    model = METHODS[config.method.type].load(config, directory, dtype)
    tuned = scoring.score_rows(model, tokenizer, test, limit, "tuned")
    del model
    base = _score_base(config, planned, test, dtype)
    references = test["reference"][:]
    lengths = [len(ids) for ids in tokenizer(references, add_special_tokens=False)["input_ids"]] if references else []
    evaluation, notes = compare(base, tuned, references, lengths)
    samples = [
        Sample(prompt=prompt, reference=reference, base=of_base, tuned=of_tuned)
        for prompt, reference, of_base, of_tuned in list(
            zip(test["prompt"][:], references, base.answers, tuned.answers, strict=True)
        )[:SAMPLES]
    ]
    return Evaluated(evaluation, notes, samples)


def _score_base(config: RunConfig, planned: PlanFile, rows: "Dataset", dtype: "torch.dtype") -> scoring.RowScores:
    """The base model's figures, from the workspace's cache where another run on the same data has left them."""
    from transformers import AutoModelForCausalLM

    key = {
        "model": planned.model_digest,
        # Covers test rows, tokenizer and chat template.
        "data": planned.dataset.digest,
        "rows": len(rows),
        "maxNewTokens": config.evaluation.max_new_tokens,
        "dtype": str(dtype),
        "scorer": scoring.SCORER_VERSION,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = Path(config.paths.workspace) / "scores" / f"{digest}.json"
    cached = scoring.load_cached(path)
    if cached is not None and len(cached.losses) == len(rows):
        logger.info("base scores found", extra={"path": str(path)})
        return cached
    model = AutoModelForCausalLM.from_pretrained(config.paths.model, dtype=dtype, local_files_only=True)
    began = time.monotonic()
    tokenizer = load_tokenizer(config.paths.model)
    scores = scoring.score_rows(model, tokenizer, rows, config.evaluation.max_new_tokens, "base")
    logger.info("base scored", extra={"seconds": round(time.monotonic() - began, 1), "path": str(path)})
    scoring.save_cached(path, scores)
    return scores
