"""Pretrains the base model: a small Llama, on the CPU, with the same result for the same code and versions."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dev.basemodel.corpus import Document, documents
from dev.basemodel.tokenizer import render, train_tokenizer

SEED = 20
THREADS = 2
TOKENIZER_DOCUMENTS = 20_000
MAX_LENGTH = 512  # positions that the model has
CUT = 192  # tokens after which a document is cut while pretraining
STEPS = 840
STAGE_ENDS = (0.15, 0.33, 0.75)  # where in the run each stage of the corpus but the last ends
BATCH_TOKENS = 1920  # most tokens per step, padding included
POOL = 256  # documents sorted by length at a time, so that little is padded
WARMUP = 50  # steps
PEAK_RATE = 2e-3
PROMPT_WEIGHT = 0.1  # of what the model does not answer, in the loss
TAIL_WEIGHT = 0.3  # of an answer behind its first token, which follows from that one

Encoded = tuple[list[int], list[float]]
"""A document's token ids and the weight of each in the loss."""


def _model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        # At transformers' 0.02, so narrow a model stays at chance on negation for a whole run.
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def _encode(tokenizer: PreTrainedTokenizerFast, document: Document) -> Encoded:
    ids: list[int] = []
    weights: list[float] = []
    for text, answered in render(document):
        piece = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        weights += [1.0, *[TAIL_WEIGHT] * (len(piece) - 1)] if answered else [PROMPT_WEIGHT] * len(piece)
    return ids[:CUT], weights[:CUT]


def _batches(tokenizer: PreTrainedTokenizerFast, stage: int) -> Iterator[list[Encoded]]:
    """Documents of about the same length, as many as fit into BATCH_TOKENS; of one stage of the corpus, without end."""
    text, rng = documents(SEED + 1 + stage, stage), random.Random(SEED)
    while True:
        pool = sorted((_encode(tokenizer, next(text)) for _ in range(POOL)), key=lambda encoded: len(encoded[0]))
        batches: list[list[Encoded]] = [[]]
        for encoded in pool:
            if len(encoded[0]) * (len(batches[-1]) + 1) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(encoded)
        rng.shuffle(batches)
        yield from batches


def _curriculum(tokenizer: PreTrainedTokenizerFast, steps: int) -> Iterator[list[Encoded]]:
    """The batches of all stages, one per step."""
    ends = [0, *(round(end * steps) for end in STAGE_ENDS), steps]
    for stage, (start, end) in enumerate(itertools.pairwise(ends)):
        yield from itertools.islice(_batches(tokenizer, stage), end - start)


def _tensors(encoded: list[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and loss weights, each [documents, longest]; padding has weight 0."""
    longest = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in encoded])
    weights = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in encoded])
    return ids, weights


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine down to 5 %."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.05 + 0.95 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP))) / 2


def pretrain(folder: Path, report: Callable[[str], None], steps: int = STEPS) -> None:
    """Train tokenizer and model and save both into `folder`, as transformers' `from_pretrained` reads them.

    `report` gets a line of progress every few seconds. Changes torch's number of threads and random state.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written; filling it would take 5 % of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    report("training the tokenizer")
    tokenizer = train_tokenizer(itertools.islice(documents(SEED), TOKENIZER_DOCUMENTS), MAX_LENGTH)
    model = _model(tokenizer)
    report(f"pretraining {model.num_parameters() / 1e6:.1f} million parameters, {steps} steps of {BATCH_TOKENS} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    started = reported = time.monotonic()
    model.train()
    for step, batch in enumerate(_curriculum(tokenizer, steps), start=1):
        ids, weights = _tensors(batch, tokenizer.pad_token_id)
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses @ weights[:, 1:].flatten()) / weights[:, 1:].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if time.monotonic() - reported > 5 or step == steps:
            reported = time.monotonic()
            left = (reported - started) / step * (steps - step)
            report(f"step {step}/{steps}, loss {loss.item():.3f}, {left:.0f} s left")
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=64
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
