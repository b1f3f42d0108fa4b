"""How a model that learned from a teacher is scored: by how far from the teacher it is on held-out prompts.

klToTeacher   mean over the rows of

    1/T · sum over t = 1..T of sum over the vocabulary v of  q(v | x, y_<t) · log(q(v | x, y_<t) / p(v | x, y_<t))

in nats per token, at temperature 1; q is the teacher, p the model, x the prompt, and y the teacher's likeliest answer
to it, T tokens with its end. 0 is a model that would say everything as the teacher does; lower is better.

Training takes the other direction, on answers of the model's own. These differ from base to tuned model, so that their
figures would not be of the same text, and a model that repeats itself is close to any teacher that continues the
repetition.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hone.contract.report import Sample
from hone.contract.results import EvaluationSummary, Score
from hone.contract.runconfig import RunConfig
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.models.inference import division, for_inference
from hone_trainer.models.loading import load_model
from hone_trainer.models.teacher import load_teacher
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores.evaluated import SAMPLES, Evaluated
from hone_trainer.scores.intervals import mean
from hone_trainer.scores.pairs import NO_ROWS
from hone_trainer.scores.rows import answer_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from hone_trainer.data.prepared import Prepared

METRIC = "klToTeacher"
_TILE_TOKENS = 256


def evaluate(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", test: "Dataset", directory: Path, dtype: torch.dtype
) -> Evaluated:
    """Score the exported model against its base; arguments as in `scores.answers.evaluate`."""
    if not len(test):
        return Evaluated(EvaluationSummary(scores=[]), [NO_ROWS], [])
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(directory)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    limit = planned.plan.max_completion_length or config.evaluation.max_new_tokens
    prompts = test["prompt_ids"][:]
    teacher = for_inference(load_teacher(config, dtype, **division()))
    figures: list[np.ndarray] = []
    written: list[list[str]] = []
    with torch.inference_mode():
        answers = answer_ids(teacher, tokenizer, prompts, limit, pad, "teacher")
        for name in ("tuned", "base"):
            model = (
                METHODS[config.method.type].load(config, CHAT, directory, dtype)
                if name == "tuned"
                else load_model(AutoModelForCausalLM, config.paths.model, dtype=dtype, **division())
            )
            model = for_inference(model)
            figures.append(divergences(teacher, model, prompts, answers))
            first = answer_ids(model, tokenizer, prompts[:SAMPLES], limit, pad, name)
            written.append(tokenizer.batch_decode(first, skip_special_tokens=True))
            del model
    references = tokenizer.batch_decode(answers[:SAMPLES], skip_special_tokens=True)
    samples = [
        Sample(prompt=prompt, reference=reference, base=base, tuned=tuned)
        for prompt, reference, tuned, base in zip(test["prompt"][:SAMPLES], references, *written, strict=True)
    ]
    tuned, base = figures
    return Evaluated(EvaluationSummary(scores=[compare(base, tuned)]), _notes(answers, limit), samples)


def divergences(
    teacher: "PreTrainedModel",
    model: "PreTrainedModel",
    prompts: list[list[int]],
    answers: list[list[int]],
) -> np.ndarray:
    """Mean over an answer's tokens of the divergence of the model from the teacher, in nats, shape [rows].

    Args:
        teacher, model: on one device, without gradients.
        prompts, answers: ids of each row; an answer has at least one.
    """
    figures = np.zeros(len(prompts))
    # One by one: of rows of different lengths, a model would give more logits than those of the answers.
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = torch.tensor([prompt + answer], device=model.device)
        # The logits at the token before it are the prediction of each token.
        last = len(answer) + 1
        logits = [
            each(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0, -last:-1] for each in (teacher, model)
        ]
        figures[row] = _divergence(*logits) / len(answer)
    return figures


def _divergence(teacher: torch.Tensor, model: torch.Tensor) -> float:
    """The divergence in nats, summed over the tokens, some at a time in fp32; logits of shape [tokens, vocabulary]."""
    total = 0.0
    tiles = zip(teacher.split(_TILE_TOKENS), model.to(teacher.device).split(_TILE_TOKENS), strict=True)
    for q_tile, p_tile in tiles:
        q, p = (torch.log_softmax(tile.float(), dim=-1) for tile in (q_tile, p_tile))
        total += (q.exp() * (q - p)).sum().item()
    return total


def compare(base: np.ndarray, tuned: np.ndarray) -> Score:
    """The score.

    Args:
        base, tuned: divergences of the same rows, shape [rows], at least one row.
    """
    return Score(
        metric=METRIC,
        higher_is_better=False,
        samples=len(base),
        base=mean(base),
        tuned=mean(tuned),
        improvement=mean(base - tuned),
    )


def _notes(answers: list[list[int]], limit: int) -> list[str]:
    length = sum(map(len, answers)) / len(answers)
    notes = [f"{METRIC}: nats per token of the teacher's answers, which have {length:.3g} tokens on average."]
    if cut := sum(len(answer) == limit for answer in answers):
        notes.append(f"{cut} of these answers have {limit} tokens, the limit (maxCompletionLength).")
    return notes
