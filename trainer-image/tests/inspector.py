"""Reads mutated model directories as prepare does, each in a process of its own with limits of time and memory.

    python inspector.py MODEL SCRATCH FIRST LAST

Prints a line of JSON for each seed: what became of it. A process that reads models must have run nothing with threads
when it is forked, so this is a program of its own.
"""

import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mutations import SECRET, mutate

SECONDS = 20
MEMORY = 1 << 30
"""Bytes that reading one model may take in addition to the libraries."""


def inspect(directory: Path) -> str:
    """Read a model as prepare does; then load it as train does, which must work if prepare accepted it."""
    import torch
    from transformers import AutoModelForCausalLM

    from hone.contract.settings import Method
    from hone_trainer.models.architectures import CHAT
    from hone_trainer.models.facts import load_tokenizer
    from hone_trainer.models.loading import load_model
    from hone_trainer.models.merging import copy_served_files
    from hone_trainer.models.modules import read_base
    from hone_trainer.protocol.errors import BadInput

    torch.set_num_threads(1)
    try:
        facts = read_base(str(directory), CHAT, Method())
        tokenizer = load_tokenizer(directory)
    except BadInput as error:
        assert error.field.startswith("spec.model"), error.field
        assert error.hint, str(error)
        assert SECRET not in str(error), str(error)
        return f"BadInput: {error.message[:200]}"
    model = load_model(AutoModelForCausalLM, directory)
    assert sum(each.numel() for each in model.parameters()) > 0
    assert facts.parameters > 0
    assert len(tokenizer("hello")["input_ids"]) < 100
    artifact = directory.with_name("artifact")
    artifact.mkdir()
    copy_served_files(directory, artifact, "spec.model")
    for file in artifact.rglob("*"):
        assert file.is_dir() or (not file.is_symlink() and SECRET.encode() not in file.read_bytes()), file
    return "right"


def isolated(model: Path, scratch: Path, seed: int) -> dict[str, Any]:
    """What became of one seed: its mutations, the outcome, seconds, and memory in addition to the libraries' own."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (scratch / "secret").write_text(SECRET)
    names = mutate(model, scratch / "model", seed)
    before = _resident()
    begin, (reading, writing) = time.monotonic(), os.pipe()
    child = os.fork()
    if child == 0:
        _child(scratch / "model", writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "seed": seed,
        "mutations": names,
        "outcome": outcome if code == 0 else f"ended with {code}: {outcome}",
        "seconds": round(time.monotonic() - begin, 2),
        "bytes": max(0, usage.ru_maxrss * 1024 - before),
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _child(directory: Path, writing: int) -> None:
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # whose signal ends the process
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, size + 2 * MEMORY))
        os.write(writing, inspect(directory).encode(errors="replace"))
        code = 0
    except BaseException as error:
        os.write(writing, f"{type(error).__name__}: {error}"[:2000].encode(errors="replace"))
        import traceback

        os.write(writing, traceback.format_exc()[-1500:].encode(errors="replace"))
    finally:
        os._exit(code)


def main(model: str, scratch: str, first: str, last: str) -> None:
    """Inspect the seeds from `first` up to, but without, `last`."""
    logging.disable(logging.CRITICAL)
    # Imported once, before the first child, and nothing later: the files of the code may change meanwhile.
    import peft  # noqa: F401
    import transformers

    import hone_trainer.models.merging
    import hone_trainer.models.trial  # noqa: F401

    transformers.AutoModelForCausalLM, transformers.AutoTokenizer, transformers.LlamaForCausalLM  # noqa: B018
    for seed in range(int(first), int(last)):
        print(json.dumps(isolated(Path(model), Path(scratch), seed)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
