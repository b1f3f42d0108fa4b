"""Preparing data, Hone against `datasets.map` with as many processes and the same tokenizer, in turns.

The other side tokenizes each conversation by the model's chat template, and does no more: it neither checks the rows
nor divides them, finds no mask and no duplicates, and its rows are not shuffled. Both read the same file.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dev.bench_figures import ratio_of_sums, shown
from dev.uv import ROOT

TURNS = 3
WORDS = 20_000
SYLLABLES = [
    a + b for a in ("b", "d", "g", "k", "l", "m", "r", "s", "sh", "st", "tr") for b in ("a", "e", "i", "ou", "an")
]
MODULE = "dev.bench_prepare"
_TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def bench(directory: Path, rows: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Prepare `rows` conversations of about 300 tokens by either side, in turns; and half of them, for the memory."""
    from hone_trainer.protocol import host

    model, whole, half = write_model(directory / "model"), directory / "rows.jsonl", directory / "half.jsonl"
    write_rows(whole, rows)
    write_rows(half, rows // 2)
    seconds: dict[str, list[float]] = {"hone": [], "datasets": []}
    peaks: dict[str, int] = {}
    for turn in range(TURNS):
        for side in list(seconds)[:: 1 if turn % 2 == 0 else -1]:
            figures = _run(side, model, whole, directory / f"{side}-{turn}")
            seconds[side].append(figures["seconds"])
            peaks[side] = figures["peak"]
            report(f"turn {turn + 1} of {TURNS}, {side}: {rows / figures['seconds']:.0f} rows per second")
    small = _run("hone", model, half, directory / "half")["peak"]
    return {
        "rows": rows,
        "processes": host.cpus(),
        "rowsPerSecond": {side: rows * TURNS / sum(each) for side, each in seconds.items()},
        "ratio": ratio_of_sums(seconds["datasets"], seconds["hone"]).to_dict(),
        "peakBytes": peaks["hone"],
        "bytesPerRow": (peaks["hone"] - small) / (rows - rows // 2),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    rate = figures["rowsPerSecond"]
    return "\n".join(
        [
            f"{figures['rows']} rows, {figures['processes']} processes",
            f"  Hone            {rate['hone']:8.0f} rows per second",
            f"  datasets.map    {rate['datasets']:8.0f} rows per second",
            f"  ratio           {shown(figures['ratio'])}",
            f"  Hone's memory   {figures['peakBytes'] >> 20:8} MiB, {figures['bytesPerRow']:.0f} bytes per row",
        ]
    )


def write_model(directory: Path) -> Path:
    """Write a Llama of random weights, and a byte-level BPE tokenizer as chat models have it, to `directory`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    chance, words = random.Random(1), _words()
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_text(chance, words, 200) for _ in range(3000)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_TEMPLATE
    )
    fast.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def write_rows(path: Path, count: int) -> None:
    """Write conversations of about 300 tokens."""
    chance, words = random.Random(0), _words()
    with path.open("w") as file:
        for number in range(count):
            turns = [("user", f"{_text(chance, words, 130)} {number}?"), ("assistant", _text(chance, words, 90))]
            row = {"messages": [{"role": role, "content": content} for role, content in turns]}
            file.write(json.dumps(row) + "\n")


def _words() -> list[str]:
    chance = random.Random(2)
    return ["".join(chance.choices(SYLLABLES, k=chance.choice((1, 2, 2, 3, 3, 4)))) for _ in range(WORDS)]


def _text(chance: random.Random, words: list[str], count: int) -> str:
    """Words of which some are frequent and most are rare."""
    drawn = [words[min(WORDS - 1, int(chance.paretovariate(0.6)) - 1)] for _ in range(count)]
    return ". ".join(" ".join(drawn[i : i + 12]).capitalize() for i in range(0, count, 12)) + "."


def _run(side: str, model: Path, data: Path, directory: Path) -> dict[str, Any]:
    """Seconds and peak memory of a side, in a process of its own; its imports are not counted."""
    directory.mkdir()
    result = subprocess.run(
        [sys.executable, "-m", MODULE, side, str(model), str(data), str(directory)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(directory / "cache")},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def _hone(model: Path, data: Path, directory: Path) -> None:
    from hone.contract.runconfig import RunConfig
    from hone_trainer import prepare

    paths = {name: str(directory / name) for name in ("workspace", "run", "output")}
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "bench", "name": "prepare", "uid": "0000"},
            "modelName": "random",
            "hyperparameters": {"packing": False},
            "data": {"train": str(data)},
            "paths": {"model": str(model), **paths},
        }
    )
    prepare.prepare(config, measures_workspace=False)


def _datasets(model: Path, data: Path, directory: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from hone_trainer.protocol import host

    tokenizer: Any = AutoTokenizer.from_pretrained(model)

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        return dict(tokenizer.apply_chat_template(row["messages"], return_dict=True))

    rows = load_dataset("json", data_files=str(data), split="train")
    tokenized = rows.map(tokenize, num_proc=host.cpus(), remove_columns=["messages"])
    tokenized.save_to_disk(str(directory / "tokenized"), num_proc=host.cpus())


def main() -> None:
    """One side: `python -m dev.bench_prepare <side> <model> <data> <directory>`."""
    import bitsandbytes
    import datasets
    import peft
    import transformers
    import trl

    import hone_trainer.data.build
    import hone_trainer.models.activations
    import hone_trainer.models.modules

    del bitsandbytes, peft, trl, transformers, hone_trainer
    datasets.disable_progress_bars()
    side, *paths = sys.argv[1:]
    begin = time.perf_counter()
    {"hone": _hone, "datasets": _datasets}[side](*map(Path, paths))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
