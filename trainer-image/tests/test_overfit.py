"""A run that overfits: the checkpoint before that is exported, and it is the better one; also after a preemption."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from in_process import finished, train_here
from test_train import stop_after

from hone.contract.methods import MethodType
from hone.contract.report import Report
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Select
from hone_trainer.protocol.planfile import require_plan, save_plan
from hone_trainer.protocol.status import RankStatus
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.training import checkpoint
from hone_trainer.training.validation import validation_of

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]
STEPS, EVERY, PATIENCE = 40, 4, 3


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and few rows, half of them wrong: what is right is learned first, the rest by heart."""
    root = tmp_path_factory.mktemp("noisy")
    tiny.make_model(root / "model", hidden=64, attention_dropout=0.0)
    rows = {"rows": 16, "validation_rows": 64, "test_rows": 100}
    tiny.make_prepared(root / "workspace/prepared/tiny", root / "model", wrong=0.5, **rows)
    with tiny.only_rank():
        yield root


def make_run(root: Path, noisy: Path, patience: int | None = None, **gang: int) -> RunConfig:
    """A run that saves nothing but its best step and its last one."""
    return tiny.make_run(
        root,
        method=MethodType.FULL,
        steps=STEPS,
        every=STEPS,
        evaluate=EVERY,
        keep=1,
        micro_batch=8 // gang.get("processes", 1),
        **gang,
        learning_rate=1e-2,
        select=Select.BEST,
        patience=patience,
        shared=noisy,
    )


@pytest.fixture(scope="module")
def overfit(noisy: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The run, trained to its end."""
    root = tmp_path_factory.mktemp("overfit")
    config = make_run(root, noisy)
    with pytest.MonkeyPatch.context() as patch:
        train_here(root, patch)
    return config


def finish_as(config: RunConfig, select: Select, monkeypatch: pytest.MonkeyPatch) -> Report:
    """The report where this checkpoint is selected."""
    root, planned = Path(config.paths.output).parent, require_plan(config)
    save_plan(
        config, planned.model_copy(update={"plan": planned.plan.model_copy(update={"checkpoint_select": select})})
    )
    shutil.rmtree(config.paths.output)
    Path(config.paths.output).mkdir()
    monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    return finished(config)


def loss_of(report: Report) -> float:
    assert report.evaluation
    return next(score.tuned.value for score in report.evaluation.scores if score.metric == "loss")


def test_an_overfit_run_exports_an_earlier_step_which_scores_better_than_its_last(
    overfit: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, last = (finish_as(overfit, select, monkeypatch) for select in (Select.BEST, Select.LAST))
    assert last.final_step == STEPS
    assert best.final_step <= STEPS / 2
    assert loss_of(best) < loss_of(last) - 0.2
    status_file = Path(overfit.paths.output).parent / "status/rank-0.json"
    status = RankStatus.model_validate_json(status_file.read_text())
    assert status.best_step == best.final_step
    assert f"rises since step {best.final_step}" in (status.validation_warning or "")
    retained = [mark.step for _, mark in checkpoint.whole(checkpoint.checkpoints_dir(overfit))]
    assert retained == [best.final_step, STEPS], "keep is 1"


def test_a_preempted_run_has_the_same_best_step_and_ends_early_where_one_without_a_stop_would(
    overfit: RunConfig, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint.exported(overfit, Select.BEST)
    assert whole
    step = whole[1].step
    config = make_run(tmp_path, noisy, patience=PATIENCE)
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        stop_after(patch, step + EVERY + 1)
        train_here(tmp_path, patch)
    shutil.rmtree(tmp_path / "status")
    train_here(tmp_path, monkeypatch)
    resumed = checkpoint.exported(config, Select.BEST)
    assert resumed and (resumed[1].step, resumed[1].eval_loss) == (step, whole[1].eval_loss), "difference 0.0"
    last, uninterrupted = checkpoint.final_checkpoint(config), checkpoint.final_checkpoint(overfit)
    assert last and uninterrupted
    assert last[1].step == step + PATIENCE * EVERY, "patience counts across the stop"
    seen = validation_of(last[0]).losses
    assert seen == validation_of(uninterrupted[0]).losses[: len(seen)], "every evaluation is known, each once"
    assert finished(config).final_step == step
