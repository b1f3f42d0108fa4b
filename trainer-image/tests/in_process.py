"""A run in the process of its test, which stands for the only rank (`tiny.only_rank`) and then for finish."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from hone.contract.report import Report
from hone.contract.runconfig import RunConfig
from hone_trainer import finish, train
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint


def train_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the run under `root`, as `tiny.make_run` made it; what it raises is the test's."""
    monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    (root / "status").mkdir(exist_ok=True)
    train._train(0, StatusDir(root / "status"))


def finished(config: RunConfig) -> Report:
    """Finish the run that was trained last, and read its report."""
    assert finish.main() == 0
    return Report.model_validate_json((Path(config.paths.output) / "report.json").read_text())


def final_weights(config: RunConfig) -> dict:
    """The tensors of the run's last checkpoint."""
    final = checkpoint.final_checkpoint(config)
    assert final
    return load_file(next(final[0].glob("*model.safetensors")))
