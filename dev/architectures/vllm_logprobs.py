"""Log-probabilities of prompts by vLLM: `python vllm_logprobs.py REQUEST`, run by the interpreter of `dev.vllm`.

The request is a JSON object: `model` and `tokenizer` (directories), `adapter` (a directory, or null), `rank` (at least
the adapter's) and `prompts` (lists of token ids). The last line printed is a JSON list: for each prompt, the
log-probability of each of its tokens but the first.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the model once and print what it says of the prompts."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    request = json.loads(Path(sys.argv[1]).read_text())
    adapter = request["adapter"]
    lora = {"enable_lora": True, "max_lora_rank": request["rank"]} if adapter else {}
    # Eager, as compiling takes longer than all else; float32, so that only wrong weights make a difference.
    model = LLM(
        request["model"],
        tokenizer=request["tokenizer"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=4,
        **lora,
    )
    results = []
    for prompt in request["prompts"]:
        # One at a time: vLLM 0.32 on CPUs fails at the logprobs of several prompts with an adapter.
        (output,) = model.generate(
            [{"prompt_token_ids": prompt}],
            SamplingParams(max_tokens=1, prompt_logprobs=0),
            lora_request=LoRARequest("adapter", 1, adapter) if adapter else None,
            use_tqdm=False,
        )
        results.append(_of_tokens(output.prompt_token_ids, output.prompt_logprobs))
    print(json.dumps(results))


def _of_tokens(tokens: list[int], logprobs: list[dict[int, Any]]) -> list[float]:
    return [at[token].logprob for token, at in zip(tokens[1:], logprobs[1:], strict=True)]


if __name__ == "__main__":
    main()
