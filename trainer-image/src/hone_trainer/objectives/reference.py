"""Log-probabilities of the answers under the model as it was before training, which DPO and KTO compare with.

They are computed once, before the first step, and cached in a file of the run for later attempts: so no second model
takes up memory, and a resumed run compares with exactly the same figures.
"""

import io
import logging
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy
import torch
from torch.utils.data import DataLoader
from trl.models.utils import prepare_deepspeed

from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.trainer import TrainerMixin, random_state_restored
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.training.collectives import barrier, highest

if TYPE_CHECKING:
    from datasets import Dataset

_LOG_SECONDS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceCache:
    """The file of a run that caches its figures.

    Attributes:
        directory: of the run's checkpoints.
        key: what they hold for; a file with another one counts as none.
    """

    directory: Path
    key: str

    @classmethod
    def of(cls, inputs: Inputs) -> "ReferenceCache":
        """For these inputs: model and settings are in the RunConfig, the rows in the prepared data's name."""
        return cls(inputs.output_dir, f"{digest_of(inputs.config)} {inputs.prepared.directory.name}")

    def load(self, name: str, columns: tuple[str, ...], rows: int) -> dict[str, numpy.ndarray] | None:
        """The figures of a split, or None."""
        try:
            with numpy.load(self._path(name), allow_pickle=False) as stored:
                if str(stored["key"]) != self.key:
                    return None
                figures = {column: stored[column] for column in columns}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return figures if all(len(values) == rows for values in figures.values()) else None

    def save(self, name: str, figures: dict[str, numpy.ndarray]) -> None:
        """Write the figures of a split."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {"key": numpy.array(self.key), **figures}
        numpy.savez(content, **arrays)
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(name), content.getvalue(), durable=True)

    def _path(self, name: str) -> Path:
        return self.directory / f"reference-{name}.npz"


class ReferenceMixin(TrainerMixin):
    """Put before TRL's DPOTrainer or KTOTrainer, built with `precompute_ref_log_probs`, for rows prepared already.

    Args:
        cache: the file that has them for later attempts.
    """

    COLUMNS: ClassVar[tuple[str, ...]]
    """TRL's names of the figures that `compute_ref_log_probs` returns, in its order."""

    def __init__(self, *args: Any, cache: ReferenceCache, **kwargs: Any) -> None:
        self._cache = cache
        super().__init__(*args, **kwargs)

    def set_validation(self, rows: "Dataset") -> None:
        """Evaluate on these rows. Call it before training: later, the model is no longer the base."""
        self.eval_dataset = self._precompute_ref_logps(rows, "validation", self.args.per_device_eval_batch_size)

    def _prepare_dataset(self, dataset: "Dataset", *_: object) -> "Dataset":
        return dataset

    def _precompute_ref_logps(self, dataset: "Dataset", name: str, batch_size: int) -> "Dataset":
        # TRL's own writes next to the prepared rows, which all runs on the volume share.
        if not len(dataset):
            return dataset
        figures = self._cache.load(name, self.COLUMNS, len(dataset))
        (missing,) = highest([figures is None], self.args.device)
        if missing or figures is None:
            # So that what follows does not depend on whether they were cached.
            with random_state_restored():
                figures = self._reference(dataset, name, batch_size)
            if self.args.process_index == 0:
                self._cache.save(name, figures)
            barrier()
        if dataset._indices is not None:
            # Chosen rows: add_column would write them to the data's directory first.
            dataset = dataset.flatten_indices(keep_in_memory=True)
        for column, values in figures.items():
            dataset = dataset.add_column(column, values)
        return dataset

    def _reference(self, dataset: "Dataset", name: str, batch_size: int) -> dict[str, numpy.ndarray]:
        trainer: Any = self
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=trainer.data_collator, shuffle=False)
        batches = trainer.accelerator.prepare(loader)
        model, began, logged = self._untrained(), time.monotonic(), time.monotonic()
        computed: list[tuple[torch.Tensor, ...]] = []
        for batch in batches:
            figures = trainer.compute_ref_log_probs(model, batch)
            computed.append(tuple(part.float().cpu() for part in trainer.accelerator.gather_for_metrics(figures)))
            if time.monotonic() - logged >= _LOG_SECONDS:
                logged = time.monotonic()
                done = sum(len(parts[0]) for parts in computed)
                logger.info("reference", extra={"split": name, "rows": done, "of": len(dataset)})
        logger.info("reference", extra={"split": name, "rows": len(dataset), "seconds": time.monotonic() - began})
        parts = zip(*computed, strict=True)
        return {column: torch.cat(part).numpy() for column, part in zip(self.COLUMNS, parts, strict=True)}

    def _untrained(self) -> Any:
        """The model, ready for a forward pass: DeepSpeed has not yet placed it, nor gathers what it has spread."""
        trainer: Any = self
        if not trainer.is_deepspeed_enabled:
            return trainer.model
        if trainer._precompute_engine is None:
            trainer._precompute_engine = prepare_deepspeed(trainer.model, trainer.accelerator)
        return trainer._precompute_engine
