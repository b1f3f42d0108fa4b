"""Strike ranks with faults, from outside of the code under test: HONE_TEST_FAULT="<fault> <fault> ...".

A fault is `<kind>@<place>[:<option>=<value>]...`, as in `oom@3`, `sleep@4:rank=1`, `kill@weights=20:once=/tmp/mark`.
Kinds are the keys of `KINDS`, and nan and spike, which spoil the loss and its gradients from a step on. hold waits
for a file `<once>.go`. Places:

    python, torch       the rank's interpreter starts; it begins to import torch
    <n>, step=<n>       the first micro-batch of optimizer step n, counted from 1 over all attempts
    save=<n>            the checkpoint of step n is about to be written
    weights=<n>         ... its weights are written, its optimizer is not
    optimizer=<n>       ... its optimizer is written, its random state is not
    mark=<n>            ... all is written but COMPLETE.json (rank 0 alone comes here)
    marked=<n>          ... COMPLETE.json is written, older checkpoints are still there (rank 0 alone)
    evaluate=<n>        an evaluation after step n begins
    evaluated=<n>       ... has ended
    end                 training has ended, its rank has not

Options: rank=<n> strikes that rank alone. once=<path> strikes only where <path>.rank<n> is not there, and makes it: a
test can wait for it, and the next start is spared. above=<n> strikes only a micro-batch of more rows, like a GPU that
holds no more than n. trial=<n> strikes only in that trial of a search, or for -1 in none. steps=<n>: nan and spike
end after so many steps. mib=<n>: how much hostmem takes at most.

The kind slow holds every micro-batch up: slow@step:seconds=<n>.

The kind rows spoils nothing: rows@step:file=<path> writes the rows of every micro-batch to <path>.rank<n>, each as a
line of JSON, [step, rows].
"""

import ctypes
import errno
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

SPIKE = 1000.0
"""What a spiked loss is multiplied with."""

TRIAL = [-1]
"""Number of the trial of a search that the rank is at; -1: none."""

PLACES: dict[str, tuple[str, str, bool]] = {
    "save": ("transformers.trainer", "Trainer._save_checkpoint", False),
    "weights": ("hone_trainer.objectives.trainer", "TrainerMixin.save_model", True),
    "optimizer": ("transformers.trainer", "Trainer._save_optimizer_and_scheduler", True),
    "mark": ("hone_trainer.training.checkpoint", "complete", False),
    "marked": ("hone_trainer.training.checkpoint", "complete", True),
    "evaluate": ("transformers.trainer", "Trainer.evaluate", False),
    "evaluated": ("transformers.trainer", "Trainer.evaluate", True),
    "end": ("transformers.trainer", "Trainer._finalize_training", True),
}
"""Places that are a function's begin or end: its module, its name, whether its end is meant."""


@dataclass
class Fault:
    """One fault, and whether it has struck this rank."""

    kind: str
    place: str
    number: int | None
    options: dict[str, str]
    claimed: bool = field(default=False)

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read `<kind>@<place>:<option>=<value>`.

        Raises:
            ValueError: it is none.
        """
        head, *options = text.split(":")
        kind, at, where = head.partition("@")
        place, _, number = where.rpartition("=") if "=" in where or where.isdigit() else (where, "", "")
        fault = cls(kind, place or "step", int(number) if number else None, dict(o.split("=", 1) for o in options))
        known = {*PLACES, "step", "python", "torch"}
        if not at or kind not in {*KINDS, "nan", "spike", "rows", "slow"} or fault.place not in known:
            raise ValueError(f"no fault: {text!r}")
        return fault

    def meets(self, number: int | None) -> bool:
        """Whether it strikes this rank here and now; where it is to strike once, this was the time."""
        rank = os.environ["RANK"]
        if self.options.get("rank", rank) != rank or self.number not in (None, number):
            return False
        if int(self.options.get("trial", TRIAL[0])) != TRIAL[0]:
            return False
        return self.claim(rank)

    def claim(self, rank: str) -> bool:
        """Whether the fault has not struck before, in this start or, with once, any other."""
        if self.claimed:
            return False
        if once := self.options.get("once"):
            try:
                os.close(os.open(f"{once}.rank{rank}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
        self.claimed = True
        return True


def _out_of_memory(fault: Fault) -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (injected)")


def _full_gpu(fault: Fault) -> None:
    import torch

    # A pebibyte: the allocator itself refuses, in its own words.
    torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


def _error(fault: Fault) -> None:
    raise ValueError("the tensors have fallen out of their frame (injected)")


def _no_space(fault: Fault) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "injected")


def _take_host_memory(fault: Fault) -> None:
    taken = []
    for _ in range(int(fault.options.get("mib", "8192")) // 64):
        # Random bytes in every page: neither zero pages nor merging can spare the memory.
        taken.append(bytearray(os.urandom(4096)) * (64 * 256))
    raise ValueError("there was more host memory than this test wanted to take")


def _hold(fault: Fault) -> None:
    go = Path(f"{fault.options['once']}.go")
    while not go.exists():
        time.sleep(0.01)


def _sleep(fault: Fault) -> None:
    while True:
        time.sleep(3600)


KINDS: dict[str, Callable[[Fault], None]] = {
    "oom": _out_of_memory,
    "gpumem": _full_gpu,
    "error": _error,
    "enospc": _no_space,
    "hostmem": _take_host_memory,
    "hold": _hold,
    "sleep": _sleep,
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "segv": lambda _: ctypes.string_at(0) and None,
}
"""What a fault does where it strikes."""


def install(text: str) -> None:
    """Set the faults up; each strikes when its place is reached."""
    faults = [Fault.parse(word) for word in text.split()]
    patches: dict[str, list[Callable[[ModuleType], None]]] = {}
    for fault in faults:
        if fault.place == "python":
            _strike(fault, None)
        elif fault.place == "torch":
            patches.setdefault("torch", [])
        elif fault.place == "step":
            patches.setdefault("transformers.trainer", []).append(functools.partial(_patch_steps, fault))
        else:
            patches.setdefault(PLACES[fault.place][0], []).append(functools.partial(_patch_function, fault))
    if any("trial" in fault.options for fault in faults):
        patches.setdefault("hone_trainer.search.conduct", []).append(_watch_trials)
    begins = {"torch": [fault for fault in faults if fault.place == "torch"]}
    sys.meta_path.insert(0, _Finder(begins, patches))


def _strike(fault: Fault, number: int | None) -> None:
    if fault.meets(number):
        _tell(fault, number)
        KINDS[fault.kind](fault)


def _tell(fault: Fault, number: int | None) -> None:
    print(f"fault: {fault.kind}@{fault.place}={number} strikes rank {os.environ['RANK']}", flush=True)


def _patch_function(fault: Fault, module: ModuleType) -> None:
    _, name, after = PLACES[fault.place]
    owner, _, attribute = name.rpartition(".")
    holder: Any = getattr(module, owner) if owner else module
    original = getattr(holder, attribute)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        number = kwargs["step"] if "step" in kwargs else args[0].state.global_step
        if not after:
            _strike(fault, number)
        result = original(*args, **kwargs)
        if after:
            _strike(fault, number)
        return result

    setattr(holder, attribute, wrapped)


def _watch_trials(module: ModuleType) -> None:
    conductor: Any = module.Conductor  # type: ignore[attr-defined]
    original = conductor._run

    @functools.wraps(original)
    def run(self: Any, device: Any, trial: Any, number: int, *args: Any) -> Any:
        TRIAL[0] = number
        result = original(self, device, trial, number, *args)
        TRIAL[0] = -1
        return result

    conductor._run = run


def _patch_steps(fault: Fault, module: ModuleType) -> None:
    trainer: Any = module.Trainer  # type: ignore[attr-defined]
    original = trainer.training_step

    @functools.wraps(original)
    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        step, rows = self.state.global_step + 1, next(iter(inputs.values())).shape[0]
        if rows > int(fault.options.get("above", "0")):
            if fault.kind == "rows":
                _write_rows(fault, step, inputs)
            elif fault.kind == "slow":
                time.sleep(float(fault.options["seconds"]))
            elif fault.kind in ("nan", "spike"):
                _spoil(fault, self, step)
            else:
                _strike(fault, step)
        return original(self, model, inputs, *args, **kwargs)

    trainer.training_step = training_step


def _write_rows(fault: Fault, step: int, inputs: Any) -> None:
    rows = [
        [token for token, real in zip(ids, mask, strict=True) if real]
        for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
    ]
    with open(f"{fault.options['file']}.rank{os.environ['RANK']}", "a") as file:  # noqa: PTH123
        file.write(json.dumps([step, rows]) + "\n")


def _spoil(fault: Fault, trainer: Any, step: int) -> None:
    """Multiply the loss of this step and those after it, so that loss, gradients and weights go bad together."""
    first = fault.number or 1
    last = first + int(fault.options.get("steps", "1000000")) - 1
    if not fault.claimed:
        if step < first or step > last or not fault.meets(fault.number):
            return
        _tell(fault, step)
        original, factor = trainer.compute_loss, float("nan") if fault.kind == "nan" else SPIKE

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if trainer.state.global_step + 1 > last:
                return result
            return (result[0] * factor, *result[1:]) if isinstance(result, tuple) else result * factor

        trainer.compute_loss = compute_loss


class _Finder(importlib.abc.MetaPathFinder):
    """Lets faults in when a module is imported: before its code runs, or on what it has defined."""

    def __init__(self, begins: dict[str, list[Fault]], patches: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._begins = begins
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that Python finds by itself, with a loader that is followed by the patches."""
        if name not in self._patches:
            return None
        patches = self._patches.pop(name)
        for fault in self._begins.get(name, []):
            _strike(fault, None)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for patch in patches:
                patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
