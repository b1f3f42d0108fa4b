"""Time Hone's training against TRL's on the CPU: steps with equal settings, and tokens per second with each one's own.

Both sides are alive at once and take turns (`dev.bench_turns`).
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dev.bench_figures import ratio_of_medians, ratio_of_sums, shown
from dev.bench_runs import long_lengths, plan_run, short_lengths, write_model, write_rows
from dev.bench_turns import OWN_HEAP, Block, Side, take_turns

BLOCK_STEPS = 10
"""Optimizer steps of one turn."""
STEP_SECONDS = 0.2
"""The least duration of a step in seconds; below it, the comparison measures mostly Python."""
TARGET = 1.05
"""The target: Hone's step time divided by a plain TRL script's."""
# By kind of samples: their lengths, how many there are, and rows of a turn. Enough rows that Hone may pack them.
SAMPLES: dict[str, tuple[Callable[[int], list[int]], int, int]] = {
    "short": (short_lengths, 2000, 128),
    "long": (long_lengths, 600, 16),
}
TRL_BATCH = 8
"""transformers' default rows per step, which TRL keeps."""
TRL_VARIANTS: dict[str, dict[str, Any]] = {
    "TRL's defaults": {},
    # bfloat16 is slow on CPUs without instructions for it, which says nothing of anyone's choices.
    "TRL's, but float32": {"bf16": False},
}
SIZES = {"hidden": 256, "layers": 4}

Report = Callable[[str], None]


def bench_steps(directory: Path, steps: int, threads: int, report: Report) -> dict[str, Any]:
    """Compare the step time with that of a plain TRL script on the same model, rows, order and settings."""
    turns = math.ceil(steps / BLOCK_STEPS)
    model = write_model(directory / "model", **SIZES)
    batch = _rows_per_step(model, threads)
    total = (turns + 3) * BLOCK_STEPS
    run = plan_run(
        directory / "equal",
        model,
        write_rows(directory / "equal.jsonl", short_lengths(4096)),
        # Saving is not compared: the next checkpoint lies beyond what is measured.
        hyperparameters={"maxSteps": total, "globalBatchSize": batch, "packing": False},
        topology={"microBatchSize": batch},
        checkpoint={"everySteps": 10 * total},
    )
    sides: dict[str, dict[str, Any]] = {
        "hone": {"kind": "hone"},
        "bare": {"kind": "bare"},
        "bare-own-heap": {"kind": "bare", "heap": OWN_HEAP},
    }
    blocks = _race(directory, sides, run, [BLOCK_STEPS] * len(sides), turns, threads, report)
    hone, bare, own = ([turn[side] for turn in blocks] for side in range(len(sides)))
    median = [1e3 * statistics.median(_steps(side)) for side in (hone, bare)]
    ratio, with_own_heap = (
        ratio_of_sums([sum(block.seconds) for block in hone], [sum(block.seconds) for block in other])
        for other in (bare, own)
    )
    return {
        "steps": turns * BLOCK_STEPS,
        "rowsPerStep": batch,
        "medianStepMs": {"hone": median[0], "trl": median[1]},
        "ratio": ratio.to_dict(),
        "ratioWithOwnHeap": with_own_heap.to_dict(),
        "ratioOfMedians": ratio_of_medians([b.seconds for b in hone], [b.seconds for b in bare]).to_dict(),
        "ratioOfCpuTime": ratio_of_sums([b.cpu_seconds for b in hone], [b.cpu_seconds for b in bare]).to_dict(),
        "target": TARGET,
        "longEnough": min(median) >= 1e3 * STEP_SECONDS,
    }


def bench_defaults(directory: Path, turns: int, threads: int, report: Report) -> list[dict[str, Any]]:
    """Compare the tokens per second of Hone's own choices with those of TRL's, on the same rows.

    A turn is the same number of rows for both. Model and adapter are the same; batch, padding or packing, type and
    gradient checkpointing are each one's own.
    """
    model = write_model(directory / "model", **SIZES)
    comparisons: list[dict[str, Any]] = []
    for name, (make_lengths, rows, rows_per_turn) in SAMPLES.items():
        lengths = make_lengths(rows)
        run = plan_run(directory / name, model, write_rows(directory / f"{name}.jsonl", lengths))
        plan = json.loads((directory / name / "run" / "plan.json").read_text())["plan"]
        for against, overrides in TRL_VARIANTS.items():
            theirs = {"kind": "trl", "totalSteps": 10 * len(lengths), "overrides": overrides}
            steps = [max(1, rows_per_turn // plan["globalBatchSize"]), rows_per_turn // TRL_BATCH]
            label = f"{name}-{len(comparisons)}"
            blocks = _race(
                directory,
                {f"{label}-hone": {"kind": "hone"}, f"{label}-trl": theirs},
                run,
                steps,
                turns,
                threads,
                report,
            )
            hone, trl = ([turn[side] for turn in blocks] for side in (0, 1))
            rates = [sum(b.tokens for b in side) / sum(sum(b.seconds) for b in side) for side in (hone, trl)]
            comparisons.append(
                {
                    "samples": name,
                    "tokensPerSample": round(statistics.mean(lengths)),
                    "against": against,
                    "turns": turns,
                    "rowsPerTurn": rows_per_turn,
                    "tokensPerSecond": {"hone": rates[0], "trl": rates[1]},
                    "ratio": ratio_of_sums([_rate(b) for b in hone], [_rate(b) for b in trl]).to_dict(),
                    "hone": {key: plan.get(key) for key in ("globalBatchSize", "microBatchSize", "packing")},
                }
            )
    return comparisons


def defaults_table(rows: list[dict[str, Any]]) -> str:
    """The comparison of defaults as a text table."""
    lines = [
        "Tokens per second, padding not counted; the same model, adapter, rows and heap settings, all else each one's",
        "own choice.",
        "",
        f"  {'samples':20}{'against':22}{'Hone':>7}{'TRL':>7}   Hone / TRL",
    ]
    for row in rows:
        rate, samples = row["tokensPerSecond"], f"{row['samples']}, {row['tokensPerSample']} tokens"
        rates = f"{rate['hone']:7.0f}{rate['trl']:7.0f}"
        packing = "packed" if row["hone"]["packing"] else "padded"
        lines.append(f"  {samples:20}{row['against']:22}{rates}   {shown(row['ratio'])}   {packing}")
    return "\n".join(lines)


def _rate(block: Block) -> float:
    return block.tokens / sum(block.seconds)


def _rows_per_step(model: Path, threads: int) -> int:
    """The number of short rows with which a step takes 1.5 times its least duration."""
    import torch
    from transformers import AutoModelForCausalLM

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = 8
    ids = torch.randint(5, 1000, (rows, 100))
    took = []
    for _ in range(4):
        began = time.perf_counter()
        network(input_ids=ids, labels=ids).loss.backward()
        took.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return rows * max(1, math.ceil(1.5 * STEP_SECONDS / min(took)))


def _race(
    directory: Path,
    jobs: dict[str, dict[str, Any]],
    run: Path,
    steps: list[int],
    turns: int,
    threads: int,
    report: Report,
) -> list[list[Block]]:
    sides: list[Side] = []
    try:
        for (name, job), count in zip(jobs.items(), steps, strict=True):
            sides.append(Side(f"{directory.name}-{name}", {**job, "run": str(run), "steps": count}, directory, threads))
        return take_turns(sides, turns, lambda turn: report(f"turn {turn} of {turns}"))
    finally:
        for side in sides:
            side.end()


def _steps(blocks: list[Block]) -> list[float]:
    return [seconds for block in blocks for seconds in block.seconds]


def steps_table(figures: dict[str, Any]) -> str:
    """The comparison of steps as a text table."""
    median = figures["medianStepMs"]
    lines = [
        f"{figures['steps']} steps of each side, in turns of {BLOCK_STEPS}; {figures['rowsPerStep']} rows a step, of",
        "about 60 tokens, LoRA, float32. Hone: its rank, with its checks, agreement of ranks, status and logs.",
        "TRL: the same settings in a plain script, which logs nothing. Neither saves. Both have the heap settings of",
        "Hone's ranks; without them, as most scripts, TRL has the C library's own heap.",
        "",
        f"  median step           Hone {median['hone']:.0f} ms, TRL {median['trl']:.0f} ms",
        f"  time, Hone / TRL      {shown(figures['ratio'])}   target: at most {figures['target']}",
        f"  TRL with its own heap {shown(figures['ratioWithOwnHeap'])}",
        f"  of the medians        {shown(figures['ratioOfMedians'])}",
        f"  of the CPU time       {shown(figures['ratioOfCpuTime'])}",
    ]
    if not figures["longEnough"]:
        lines.append(f"  A step takes less than {1e3 * STEP_SECONDS:.0f} ms: mostly Python was compared.")
    return "\n".join(lines)
