"""How a reward model is scored: in how many pairs of answers it scores the better one higher.

pairAccuracy       share of pairs with r_chosen > r_rejected; 0.5 by chance
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hone.contract.report import Sample
from hone.contract.results import EvaluationSummary, Interval, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.data.labels import padding_id
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import SCORER
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores.classes import outputs
from hone_trainer.scores.evaluated import SAMPLES, Evaluated
from hone_trainer.scores.intervals import proportion

if TYPE_CHECKING:
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared

CHANCE = 0.5
NO_ROWS = "The test split has no rows, so nothing was measured."
_NOTE = (
    "The base model has no head for scores, so the base is chance: exactly 0.5, without an interval. The improvement "
    "is the tuned model's value minus 0.5."
)


def evaluate(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: torch.dtype
) -> Evaluated:
    """Score the exported model against chance; arguments as in `scores.answers.evaluate`."""
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), [NO_ROWS], [])
    model = METHODS[config.method.type].load(config, SCORER, directory, dtype)
    pad = padding_id(load_tokenizer(directory), chat=True)
    chosen, rejected = (
        outputs(model, test[f"{name}_ids"][:], pad, f"tuned: {name}")[:, 0] for name in ("chosen", "rejected")
    )
    samples = [
        Sample(
            prompt=prompt,
            reference=reference,
            base="either",
            tuned=f"{'chosen' if better > worse else 'rejected'}: {better:.4f} against {worse:.4f}",
        )
        for prompt, reference, better, worse in zip(
            test["prompt"][:SAMPLES], test["reference"][:SAMPLES], chosen, rejected, strict=False
        )
    ]
    score = against_chance("pairAccuracy", chosen > rejected)
    return Evaluated(EvaluationSummary(scores=[score]), [_NOTE], samples)


def against_chance(metric: str, hits: np.ndarray) -> Score:
    """The share of hits against one half.

    Args:
        metric: its name.
        hits: booleans, shape [rows], at least one row.
    """
    tuned = proportion(hits)
    return Score(
        metric=metric,
        higher_is_better=True,
        samples=len(hits),
        base=Interval(value=CHANCE, lower=CHANCE, upper=CHANCE),
        tuned=tuned,
        improvement=tuned.shifted(-CHANCE),
    )
