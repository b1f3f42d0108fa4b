"""A rank that tries two optimizer steps out instead of training: how much memory they take, and how long.

The rows are the longest ones, so that no later step needs more. Only the figures remain: the process ends, and
the run begins in another one, its weights, optimizer and random state untouched.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import Prepared
from hone_trainer.protocol import host
from hone_trainer.protocol.beats import STEP, Beats
from hone_trainer.protocol.probe import PROBE_STEPS, save_probe
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.training.collectives import highest
from hone_trainer.training.rank_trainer import RankTrainer

if TYPE_CHECKING:
    from datasets import Dataset

MakeTrainer = Callable[[Plan, Prepared, Path, list[TrainerCallback]], RankTrainer]

logger = logging.getLogger(__name__)


class Timing(TrainerCallback):
    """Records when each step ended, and reports it to the launcher.

    Args:
        status: where to report it.
        first: what is known before the first step.
        beats: the rank's heartbeat.
    """

    def __init__(self, status: StatusDir, first: RankStatus, beats: Beats) -> None:
        self._status = status
        self._now = first
        self._beats = beats
        self.ends: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Report that the probe has begun."""
        self._report(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Record the time, once the GPU is done as well."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        self._beats(STEP)
        self._report(state.global_step)

    def _report(self, step: int) -> None:
        self._now = self._now.model_copy(update={"stage": "Probing", "step": step, "observed_time": time.time()})
        self._status.write_status(self._now)


def probe_steps(
    config: RunConfig,
    plan: Plan,
    prepared: Prepared,
    level: int,
    status: StatusDir,
    first: RankStatus,
    beats: Beats,
    make_trainer: MakeTrainer,
) -> None:
    """Make the steps and, on rank 0, write what they took to `<run>/probe.json`.

    Args:
        config: the run's configuration.
        plan: as this attempt carries it out.
        prepared: the data.
        level: the plan's level of the memory fallback.
        status: where to report it to the launcher.
        first: what is known of this rank.
        beats: its heartbeat.
        make_trainer: (plan, data, output directory, callbacks) -> the objective's trainer.
    """
    rows = longest_rows(prepared.train, PROBE_STEPS * plan.global_batch_size)
    timing = Timing(status, first, beats)
    host.reset_peak()
    resident = host.own_memory("VmRSS")
    with tempfile.TemporaryDirectory(prefix="hone-probe-") as scratch:
        trainer = make_trainer(
            plan.model_copy(update={"total_steps": PROBE_STEPS}),
            replace(prepared, train=prepared.train.select(rows)),
            Path(scratch),
            [timing],
        )
        trainer.train()
    (peak,) = highest([_peak_bytes(resident)], trainer.args.device)
    if first.rank == 0:
        seconds = timing.ends[-1] - timing.ends[-2]
        measured = save_probe(config, level=level, peak_bytes=peak, seconds_per_step=seconds)
        logger.info(
            "probe",
            extra={"measured": measured.to_dict(), "estimatedBytes": plan.memory.total_bytes, "longestRows": len(rows)},
        )


def _peak_bytes(resident: int) -> int:
    """Most memory that this process took: on a GPU by its tensors, on the CPU above what was resident before."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return max(host.own_memory("VmHWM") - resident, 0)


def longest_rows(dataset: "Dataset", count: int) -> list[int]:
    """Indices of the `count` rows with most tokens, or of all, in the data's own order."""
    # Packed rows hold the length of each part.
    if "seq_lengths" in dataset.column_names:
        lengths = numpy.array([sum(parts) for parts in dataset["seq_lengths"]])
    else:
        lengths = numpy.array(dataset["length"])
    return sorted(numpy.argsort(-lengths, kind="stable")[:count].tolist())
