"""Whether vLLM computes with an exported artifact what transformers computes: log-probabilities of the same tokens."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from dev import vllm
from dev.matrix import Outcome

PROMPTS = ("1+2=3", "5+5=10", "What is 7+4?")
TOLERANCE = 1e-3
"""The largest difference in nats between two float32 computations; wrong weights differ by tenths."""
SECONDS = 300


def compare(base: Path, artifact: Path, kind: str, directory: Path) -> Outcome:
    """Load an artifact by both libraries and compare.

    Args:
        base: the directory of the model that was tuned.
        artifact: the directory of the exported adapter or model.
        kind: `Adapter` or `Model`.
        directory: for files of the comparison.

    Returns:
        `ran` with the kind, `unserved` with vLLM's words where it does not load the artifact.

    Raises:
        RuntimeError: the log-probabilities differ, or those of an adapter are its base's.
    """
    adapter = artifact if kind == "Adapter" else None
    prompts = _prompts(artifact)
    expected = _by_transformers(base if adapter else artifact, adapter, prompts)
    request = directory / "request.json"
    request.write_text(
        json.dumps(
            {
                "model": str(base if adapter else artifact),
                "tokenizer": str(artifact),
                "adapter": str(adapter) if adapter else None,
                "rank": _rank(adapter),
                "prompts": prompts,
            }
        )
    )
    ended = _vllm(request, directory / "home")
    if ended.returncode:
        return Outcome("unserved", _reason(ended.stdout + ended.stderr))
    served = json.loads(ended.stdout.strip().splitlines()[-1])
    distance = _distance(expected, served)
    if distance > TOLERANCE:
        raise RuntimeError(f"vLLM's log-probabilities differ by up to {distance:.4f}")
    if adapter and (unchanged := _distance(expected, _by_transformers(base, None, prompts))) < 10 * TOLERANCE:
        raise RuntimeError(f"the adapter changes log-probabilities by {unchanged:.4f} only, which shows nothing")
    return Outcome("ran", f"{kind}, {distance:.0e}")


def _prompts(artifact: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    return [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]


def _by_transformers(model: Path, adapter: Path | None, prompts: list[list[int]]) -> list[list[float]]:
    import torch
    import transformers
    from peft import PeftModel

    config = transformers.AutoConfig.from_pretrained(model)
    several = hasattr(config, "vision_config")
    auto = transformers.AutoModelForImageTextToText if several else transformers.AutoModelForCausalLM
    loaded: Any = auto.from_pretrained(model, dtype=torch.float32)
    if adapter:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    loaded.eval()
    with torch.no_grad():
        return [_of_tokens(loaded, prompt) for prompt in prompts]


def _of_tokens(model: Any, prompt: list[int]) -> list[float]:
    import torch

    tokens = torch.tensor([prompt])
    logprobs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
    values: list[float] = logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist()
    return values


def _rank(adapter: Path | None) -> int | None:
    from hone.core.vllm import max_lora_rank

    return max_lora_rank(json.loads((adapter / "adapter_config.json").read_text())["r"]) if adapter else None


def _vllm(request: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    home.mkdir()
    script = Path(__file__).with_name("vllm_logprobs.py")
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    own = {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    command = [str(vllm.ensure()), str(script), str(request)]
    return subprocess.run(command, env={**inherited, **own}, capture_output=True, text=True, timeout=SECONDS)


def _reason(log: str) -> str:
    """The last line that names an error."""
    lines = [line.strip() for line in log.splitlines() if "rror" in line and "https:" not in line]
    return lines[-1] if lines else "ended without a word"


def _distance(one: list[list[float]], other: list[list[float]]) -> float:
    pairs = zip(one, other, strict=True)
    return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
