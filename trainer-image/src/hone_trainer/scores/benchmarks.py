"""Scores of base and tuned model on the user's benchmarks."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.benchmarks import Benchmark
from hone.contract.results import MAX_SCORES, BenchmarkSummary
from hone.contract.runconfig import RunConfig
from hone_trainer.data.benchmarks import Questions, read
from hone_trainer.data.encode import Encoder
from hone_trainer.models.facts import context_length, load_tokenizer
from hone_trainer.models.loading import load_config
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.protocol.planfile import PlanFile
from hone_trainer.scores import answers

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.data.prepared import Prepared


def evaluate(
    config: RunConfig,
    planned: PlanFile,
    prepared: "Prepared",
    index: int,
    benchmark: Benchmark,
    directory: Path,
    dtype: "torch.dtype",
) -> tuple[BenchmarkSummary, list[str]]:
    """The scores on one benchmark, and what to know when reading them.

    Args:
        config, planned, prepared, directory, dtype: as in `scores.answers.evaluate`.
        index: the place of the benchmark in the spec's list.
        benchmark: which one.

    Raises:
        BadInput: its rows cannot be used.
    """
    questions = read(config, benchmark, index)
    longest = context_length(load_config(config.paths.model).get_text_config())
    rows, left_out = encoded(load_tokenizer(directory), questions, longest - config.evaluation.max_new_tokens)
    # The base's answers are cached by these rows, and not by those of the run.
    texts = json.dumps([rows["prompt_ids"][:], rows["reference"][:]]).encode()
    digest = f"benchmark-{hashlib.sha256(texts).hexdigest()}"
    own = planned.model_copy(update={"dataset": planned.dataset.model_copy(update={"digest": digest})})
    evaluated = answers.evaluate(config, own, prepared, rows, directory, dtype)
    notes = [*evaluated.notes]
    if left_out:
        notes.append(f"{left_out} rows were left out: their prompts fill the model's context.")
    if evaluated.rows is not None and len(evaluated.rows) < len(rows):
        notes.append(f"{len(evaluated.rows)} of {len(rows)} rows were scored, within spec.evaluation.maxMinutes.")
    summary = BenchmarkSummary(name=benchmark.name, scores=evaluated.evaluation.scores[:MAX_SCORES])
    return summary, [f"Benchmark {benchmark.name}: {note}" for note in notes]


def encoded(tokenizer: "PreTrainedTokenizerBase", questions: Questions, longest: int) -> "tuple[Dataset, int]":
    """The questions as test rows, and how many were left out.

    Args:
        tokenizer: with the chat template that the model is served with.
        questions: the rows.
        longest: most tokens of a prompt; the answer that the loss is measured on is cut there as well.

    Raises:
        BadInput: no row can be encoded.
    """
    from datasets import Dataset

    encoder = Encoder(tokenizer, questions.train_on, chat=any(sample.is_chat for sample in questions.samples))
    rows, reason = [], ""
    for sample in questions.samples:
        try:
            ids, text = encoder.prompt(sample)
            if len(ids) >= longest:
                raise RowFault(f"the prompt alone has {len(ids)} tokens, of {longest} at most")
            columns = encoder.cut(encoder.encode(sample).columns(), longest)
        except RowFault as fault:
            reason = reason or str(fault)
            continue
        rows.append({**columns, "prompt_ids": ids, "reference": encoder.reference(sample), "prompt": text})
    if not rows:
        raise BadInput(questions.field, f"no row can be used: {reason}", "Fix the rows, or remove the benchmark.")
    return Dataset.from_list(rows), len(questions.samples) - len(rows)
