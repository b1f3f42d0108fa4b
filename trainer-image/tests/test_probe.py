"""The probe on one rank in this process: its rows, what it measures, and that it leaves the run untouched."""

import gc
from pathlib import Path

import pytest
import tiny
import torch

from hone_trainer import train
from hone_trainer.objectives.trainer import TrainerMixin
from hone_trainer.protocol.probe import load_probe
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint
from hone_trainer.training.probe import longest_rows

pytestmark = pytest.mark.slow


def test_the_longest_rows_are_found_by_their_tokens() -> None:
    from datasets import Dataset

    lengths = [3, 9, 1, 7, 9, 2]
    data = Dataset.from_list([{"input_ids": [1] * n, "length": n} for n in lengths])
    assert longest_rows(data, 3) == [1, 3, 4]
    assert longest_rows(data.select([0, 2, 3]), 1) == [2], "of what is selected, not of the file"
    assert longest_rows(data, 99) == [0, 1, 2, 3, 4, 5]


def test_two_steps_on_the_longest_rows_are_measured_and_leave_nothing_else(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_run(tmp_path, micro_batch=4, accumulation=2, steps=50, every=1, shared=shared)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(tmp_path / "run.json"))
    monkeypatch.setenv("HONE_PROBE", "1")
    monkeypatch.setenv("HONE_ATTEMPT", '{"number": 1, "memoryRung": 1}')
    sizes: list[tuple[int, int]] = []
    original = TrainerMixin.training_step

    def training_step(self, model, inputs, *args):
        sizes.append(tuple(inputs["input_ids"].shape))
        # Far more than earlier tests' garbage, whose collection meanwhile would lower the figure.
        self.ballast = torch.ones(512 << 20, dtype=torch.uint8)
        return original(self, model, inputs, *args)

    monkeypatch.setattr(TrainerMixin, "training_step", training_step)
    status = StatusDir(tmp_path / "status")
    status.directory.mkdir()
    gc.collect()
    train._train(0, status)

    assert len(sizes) == 2 * 4, "two steps of four micro-batches: level 1 has half the rows in each"
    longest = max(length for _, length in sizes)
    assert sizes == [(2, longest)] * 8, "only the longest rows"
    measured = load_probe(config, level=1)
    assert 256 << 20 <= measured.peak_bytes < 4 << 30
    assert 0 < measured.seconds_per_step < 60
    assert load_probe(config, level=0) is None
    assert load_probe(config.model_copy(update={"model_name": "another"}), level=1) is None
    assert status.statuses()[0].stage == "Probing"
    assert not checkpoint.checkpoints_dir(config).exists()
