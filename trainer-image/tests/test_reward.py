"""Reward models: a rank in this process trains one on a tiny model, finish scores it, and a server's view of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.report import Report
from hone.contract.runconfig import RunConfig
from hone_trainer import finish, train
from hone_trainer.protocol.status import StatusDir

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and pairs for every run here, and this process as their rank."""
    root = tmp_path_factory.mktemp("shared")
    tiny.make_run(root, objective=Objective.REWARD, hidden=64, test_rows=60)
    with tiny.only_rank():
        yield root


@pytest.fixture
def run(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Trains a run on the shared pairs in this process, with `tiny.make_run`'s options, and finishes it."""

    def to_the_end(**options: object) -> RunConfig:
        config = tiny.make_run(
            tmp_path / "run", objective=Objective.REWARD, shared=shared, dropout=0.0, test_rows=60, **options
        )
        root = tmp_path / "run"
        monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
        monkeypatch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
        (root / "status").mkdir()
        train._train(0, StatusDir(root / "status"))
        assert finish.main() == 0, (root / "term").read_text()
        return config

    return to_the_end


def report_of(config: RunConfig) -> Report:
    return Report.model_validate_json((Path(config.paths.output) / "report.json").read_text())


@pytest.mark.parametrize("method", list(MethodType))
def test_three_steps_of_each_method_end_in_a_model_that_scores(method: MethodType, run: Callable) -> None:
    report = report_of(run(method=method, steps=3, every=3, evaluate=3))
    assert (report.artifact.kind, report.artifact.api, report.final_step) == ("Model", "Reward", 3)
    (score,) = report.evaluation.scores
    assert (score.metric, score.samples, score.base.value) == ("pairAccuracy", 60, 0.5)


def test_it_beats_a_coin_and_gives_a_server_its_bare_scores(run: Callable) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = run(method=MethodType.FULL, steps=60, every=60, micro_batch=32, learning_rate=1e-2)
    report = report_of(config)
    (score,) = report.evaluation.scores
    assert score.tuned.value > 0.75
    assert score.improvement.lower > 0
    assert score.improvement.value == pytest.approx(score.tuned.value - 0.5)

    artifact = Path(config.paths.output) / "artifact"
    settings = AutoConfig.from_pretrained(artifact)
    # By these, vLLM's /classify answers with one score that no sigmoid has squashed.
    assert (settings.num_labels, settings.problem_type) == (1, "regression")
    model = AutoModelForSequenceClassification.from_pretrained(artifact).eval()
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    sample = report.samples[0]
    with torch.inference_mode():
        ids = tokenizer(f"{sample.prompt}{sample.reference} <eos>", add_special_tokens=False, return_tensors="pt")
        served = model(**ids).logits.item()
    assert float(sample.tuned.removeprefix("chosen: ").split()[0]) == pytest.approx(served, abs=1e-3)
