"""Which architectures work: run `python3 -m dev.architectures [--cells PATTERN] [--fresh]`.

A cell is a family of models with a method and a placement. The result is `docs/architectures.md`. Cells that ended as
expected are recorded for the current state of the code, so that an interrupted run continues.
"""

import argparse
import fnmatch
import os
import pkgutil
import sys

from dev.architectures import cells
from dev.architectures.page import render
from dev.matrix import CODE, Memory, Outcome, state
from dev.uv import ROOT, cache_dir

PAGE = ROOT / "docs/architectures.md"


def preload() -> None:
    """Load the libraries, which the forks of this process then have."""
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error")
    import torch

    torch.set_num_threads(1)
    # Modules of these libraries are loaded when a name is first read.
    for name in ("bitsandbytes", "deepspeed", "peft", "transformers:Trainer", "transformers:LlamaForCausalLM"):
        pkgutil.resolve_name(name)
    pkgutil.resolve_name("trl:SFTTrainer")


def main() -> int:
    """Run the cells; returns 0 when none failed."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.architectures", description=__doc__)
    parser.add_argument("--cells", default="*", help="the cells to run, such as 'Mixtral/*' (default: all)")
    parser.add_argument("--fresh", action="store_true", help="also run cells that are already recorded")
    arguments = parser.parse_args()
    chosen = [cell for cell in cells.cells() if fnmatch.fnmatch(cell, arguments.cells)]
    if not chosen:
        parser.error(f"no cell {arguments.cells!r}")
    memory = Memory(cache_dir() / "architectures" / state((*CODE, "dev/architectures")))
    preload()
    for cell in chosen:
        if not arguments.fresh and _ended_well(memory.load(cell)):
            continue
        outcome = cells.run(cell)
        memory.save(cell, outcome)
        print(f"{cell}: {outcome.result} in {outcome.seconds:.0f} s. {outcome.words}", flush=True)
    outcomes = {cell: past for cell in cells.cells() if (past := memory.load(cell))}
    PAGE.write_text(render(outcomes, cells.PLACEMENTS))
    bad = [cell for cell in chosen if not _ended_well(memory.load(cell))]
    print(f"== {len(chosen) - len(bad)} cells ran, were refused or are not served; {len(bad)} failed ==", *bad)
    return 1 if bad else 0


def _ended_well(outcome: Outcome | None) -> bool:
    """Whether a cell has run, and not failed: what vLLM does not load is a fact about vLLM."""
    return outcome is not None and outcome.result in ("ran", "refused", "unserved")


if __name__ == "__main__":
    sys.exit(main())
