"""Small collectives by which ranks agree; with one rank they do nothing."""

import torch
import torch.distributed as dist


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
