"""Small collectives by which ranks agree; with one rank they do nothing."""

import json
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d


def wait_at_most(seconds: int) -> None:
    """Let every process group that is made from now on wait so long for the other ranks, whoever makes it.

    DeepSpeed makes groups of its own and gives them no time; nor does accelerate on CPUs.
    """
    distributed_c10d.default_pg_timeout = timedelta(seconds=seconds)
    distributed_c10d.default_pg_nccl_timeout = timedelta(seconds=seconds)  # type: ignore[attr-defined]


def highest(values: list[int | bool], device: torch.device) -> list[int]:
    """The highest of each value over all ranks: one small all-reduce."""
    if not _several():
        return [int(value) for value in values]
    reduced = torch.tensor([int(value) for value in values], dtype=torch.int64, device=device)
    dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
    return reduced.tolist()


def total(values: list[float], device: torch.device) -> list[float]:
    """The sum of each value over all ranks: one small all-reduce."""
    if not _several():
        return [float(value) for value in values]
    reduced = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(reduced)
    return reduced.tolist()


def gather(value: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    """What each rank passes, by rank, as JSON: torch's own collective for objects would unpickle it."""
    if not _several():
        return [value]
    data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(data)], dtype=torch.int64, device=device))
    longest = max(int(length) for length in lengths)
    padded = torch.cat([data, torch.zeros(longest - len(data), dtype=torch.uint8, device=device)])
    gathered = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(gathered, padded)
    return [json.loads(bytes(part[: int(length)].tolist())) for part, length in zip(gathered, lengths, strict=True)]


def barrier() -> None:
    """Wait for all ranks."""
    if _several():
        dist.barrier()


def check_same_everywhere(step: int, device: torch.device) -> None:
    """Check that all ranks start from the same step.

    Raises:
        RuntimeError: on every rank, where the ranks see different checkpoints.
    """
    most, least = highest([step, -step], device)
    if most != -least:
        raise RuntimeError(
            f"the ranks see different checkpoints, of steps {-least} to {most}: the workspace must be one volume that "
            "all pods share (ReadWriteMany)"
        )


def _several() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
