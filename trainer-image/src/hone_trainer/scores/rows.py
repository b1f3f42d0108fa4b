"""A model's figures for each test row: loss on the trained tokens, and the greedy answer."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch

from hone_trainer.data.prepared import IGNORE_INDEX
from hone_trainer.models.facts import context_length
from hone_trainer.models.inference import for_inference
from hone_trainer.protocol.files import write_atomic
from hone_trainer.scores.batches import in_batches, padded

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCORER_VERSION = 3
"""Part of the cache's key: raise it when the same model and rows would get other figures."""

_GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}

logger = logging.getLogger(__name__)


class _Generates(Protocol):
    """What `PreTrainedModel` does not declare: causal language models mix it in, and PEFT's wrapper passes it on."""

    def generate(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: object) -> torch.Tensor:
        """Prompts and answers as ids, filled up on the right; shape [rows, longest]."""
        ...


@dataclass(frozen=True)
class RowScores:
    """Figures of one model, in the order of the rows."""

    losses: list[float]
    """Mean negative log-likelihood in nats over the row's trained tokens; none where rows are prompts alone."""
    answers: list[str]
    """What the model wrote after the prompt, decoded greedily, without special tokens."""
    unfinished: list[bool] = field(default_factory=list)
    """Whether no token ended the answer before the limit; none where no answers were written."""

    def at(self, rows: Sequence[int]) -> "RowScores":
        """Those of some rows."""
        losses, unfinished = ([each[row] for row in rows] if each else [] for each in (self.losses, self.unfinished))
        return RowScores(losses, [self.answers[row] for row in rows], [bool(each) for each in unfinished])


def score_rows(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", max_new_tokens: int, name: str
) -> RowScores:
    """Score every row; `name` says in the log which model it is."""
    model = for_inference(model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        losses = _losses(model, rows, pad or 0, name)
        return RowScores(losses, *_answers(model, tokenizer, rows["prompt_ids"], max_new_tokens, pad or 0, name))


def answer_rows(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", max_new_tokens: int, name: str
) -> RowScores:
    """As `score_rows`, of rows that have prompts alone: without losses."""
    model = for_inference(model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        return RowScores([], *_answers(model, tokenizer, rows["prompt_ids"], max_new_tokens, pad or 0, name))


def text_rows(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", max_new_tokens: int, name: str
) -> RowScores:
    """As `score_rows`, of rows that are texts without answers: losses alone."""
    model = for_inference(model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        return RowScores(_losses(model, rows, pad or 0, name), [""] * len(rows))


def load_cached(path: Path, key: Mapping[str, object]) -> RowScores | None:
    """Scores that an earlier run stored for this key; None if there are none, or they are not what it stored."""
    try:
        stored = json.loads(path.read_text())
        if stored.pop("sha256") != _sha256(stored) or stored["key"] != key:
            logger.warning("cached scores were changed, and are computed again", extra={"path": str(path)})
            return None
        return RowScores(**stored["scores"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save_cached(path: Path, key: Mapping[str, object], scores: RowScores) -> None:
    """Store scores for later runs: with what they are of, and a digest of both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"key": dict(key), "scores": asdict(scores)}
    write_atomic(path, json.dumps({**stored, "sha256": _sha256(stored)}).encode())


def _sha256(stored: object) -> str:
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def _losses(model: "PreTrainedModel", rows: "Dataset", pad: int, name: str) -> list[float]:
    totals = likelihoods(model, rows["input_ids"][:], rows["labels"][:], pad, f"{name}: loss")
    return [-total / max(tokens, 1) for total, tokens in totals]


def likelihoods(
    model: "PreTrainedModel", inputs: list[list[int]], labels: list[list[int]], pad: int, what: str
) -> list[tuple[float, int]]:
    """Of each row, the log-likelihood of its labeled tokens in nats, summed, and how many they are.

    Args:
        model: on its device.
        inputs, labels: ids and labels of each row, as in prepared data.
        pad: the token to fill rows up with.
        what: names this in the log.
    """
    totals = [(0.0, 0)] * len(inputs)

    def score(batch: list[int]) -> None:
        ids, mask = padded([inputs[index] for index in batch], pad, left=False, device=model.device)
        filled, _ = padded([labels[index] for index in batch], IGNORE_INDEX, left=False, device=model.device)
        each = model(input_ids=ids, attention_mask=mask, labels=filled, fused_lm_head=True).log_probs
        counts = (filled[:, 1:] != IGNORE_INDEX).sum(dim=1)
        for index, total, tokens in zip(batch, each.sum(dim=1).tolist(), counts.tolist(), strict=True):
            totals[index] = (total, tokens)

    with _fused_head(model):
        in_batches(model, score, [len(ids) for ids in inputs], 0, what)
    return totals


@contextmanager
def _fused_head(model: "PreTrainedModel") -> Iterator[None]:
    """Give the model TRL's output head, which never holds the logits of all tokens, but tiles of them."""
    from peft import PeftModel
    from trl.trainer.utils import add_fused_lm_head

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    before = inner.__dict__.get("forward")
    add_fused_lm_head(inner)
    try:
        yield
    finally:
        del inner.forward
        if before is not None:
            inner.forward = before


def _answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    max_new_tokens: int,
    pad: int,
    name: str,
) -> tuple[list[str], list[bool]]:
    """What the model writes after each prompt, and whether no token ended it."""
    ids = answer_ids(model, tokenizer, prompts, max_new_tokens, pad, name)
    stops = {*(_stops(model, tokenizer) or [])}
    unfinished = [bool(answer) and answer[-1] not in stops for answer in ids]
    # A character that the token limit cut in half is no text; servers hold it back, too.
    return [text.rstrip("\ufffd") for text in tokenizer.batch_decode(ids, skip_special_tokens=True)], unfinished


def answer_ids(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    max_new_tokens: int,
    pad: int,
    name: str,
) -> list[list[int]]:
    """The likeliest answer to each prompt, as ids, with the token that ends it.

    Args:
        model: on its device, in inference mode.
        tokenizer: which tokens end an answer.
        prompts: ids of each.
        max_new_tokens: most tokens of an answer.
        pad: the token to fill rows up with.
        name: says in the log which model it is.
    """
    longest = context_length(model.config.get_text_config())
    stops = _stops(model, tokenizer)
    answers: list[list[int]] = [[]] * len(prompts)
    # A prompt that leaves no room for an answer has none: the server refuses it too.
    fitting = [index for index, ids in enumerate(prompts) if len(ids) < longest]

    def write(batch: list[int]) -> None:
        indices = [fitting[place] for place in batch]
        ids, mask = padded([prompts[index] for index in indices], pad, left=True, device=model.device)
        generated = cast(_Generates, model).generate(
            input_ids=ids,
            attention_mask=mask,
            **_GREEDY,
            max_new_tokens=min(max_new_tokens, longest - ids.shape[1]),
            pad_token_id=pad,
            eos_token_id=stops,
        )
        for index, answer in zip(indices, generated[:, ids.shape[1] :].tolist(), strict=True):
            answers[index] = _until_stop(answer, stops or [])

    in_batches(model, write, [len(prompts[index]) for index in fitting], max_new_tokens, f"{name}: answers")
    return answers


def _until_stop(answer: list[int], stops: list[int]) -> list[int]:
    """The ids up to and including the first one that ends an answer; all where none does."""
    end = next((place for place, token in enumerate(answer, start=1) if token in stops), None)
    return answer[:end]


def _stops(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int] | None:
    # As vLLM does: the tokenizer's end and all those of the generation config.
    configured = model.generation_config.eos_token_id
    stops = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return sorted(stop for stop in stops if stop is not None) or None
