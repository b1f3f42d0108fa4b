"""Finish: what is exported, how it is scored, what the report says; on a run of each method, trained right here."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from hone.contract.exits import FailureClass
from hone.contract.methods import MethodType
from hone.contract.record import AttemptRecord, RunRecord
from hone.contract.report import Report
from hone.contract.results import StepResult
from hone.contract.runconfig import ATTEMPT_ENV, Attempt, ChatTemplate, RunConfig
from hone.contract.settings import ChatTemplateName, Evaluation
from hone_trainer import finish, train
from hone_trainer.artifact import card, export
from hone_trainer.models.chat_template import store_template
from hone_trainer.protocol.status import StatusDir
from hone_trainer.scores import rows as scoring
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.train

Finish = Callable[[RunConfig], tuple[int, StepResult]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[MethodType, RunConfig]]:
    """A finished training of each method, on one workspace."""
    shared = tmp_path_factory.mktemp("shared")
    tiny.make_run(shared, hidden=64)
    runs = {}
    with tiny.only_rank(), pytest.MonkeyPatch.context() as patch:
        for method in MethodType:
            root = tmp_path_factory.mktemp(method.value)
            runs[method] = tiny.make_run(
                root, method=method, steps=60, every=60, keep=1, micro_batch=32, learning_rate=1e-2, shared=shared
            )
            patch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
            train._train(0, StatusDir(root))
        yield runs


@pytest.fixture
def run_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finish:
    """Runs finish in this process; gives its exit code and termination message."""

    def run(config: RunConfig) -> tuple[int, StepResult]:
        path = tmp_path / "run.json"
        path.write_text((Path(config.paths.output).parent / "run.json").read_text())
        monkeypatch.setenv("HONE_RUN_CONFIG", str(path))
        monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "term"))
        code = finish.main()
        return code, StepResult.model_validate_json((tmp_path / "term").read_text())

    return run


@pytest.fixture
def fresh(trained: dict[MethodType, RunConfig]) -> RunConfig:
    """The Full run as it was before finish."""
    config = trained[MethodType.FULL]
    shutil.rmtree(config.paths.output)
    Path(config.paths.output).mkdir()
    return config


def report_of(config: RunConfig) -> Report:
    """The written report."""
    return Report.model_validate_json((Path(config.paths.output) / "report.json").read_text())


@pytest.mark.parametrize("method", list(MethodType))
def test_the_artifact_knows_the_task(
    method: MethodType, trained: dict[MethodType, RunConfig], run_finish: Finish
) -> None:
    config = trained[method]
    code, result = run_finish(config)
    assert code == 0
    match = result.evaluation.scores[0]
    assert (match.metric, match.samples) == ("exactMatch", 24)
    assert match.base.value < 0.3
    assert match.improvement.lower > 0, "trained on eight words, it beats the untrained base"
    report = report_of(config)
    assert report.artifact == result.artifact
    right = sum(sample.tuned.strip() == sample.reference for sample in report.samples)
    assert len(report.samples) == 20
    assert right / 20 == pytest.approx(match.tuned.value, abs=0.2)
    assert result.artifact.kind == ("Adapter" if method.adapts else "Model")
    assert (result.artifact.lora_rank, result.artifact.max_model_length) == (
        8 if method.adapts else None,
        64,
    )


def test_the_page_shows_what_the_run_did(fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fresh
    record = RunRecord(attempts=[AttemptRecord(step="train", number=1, result="Succeeded")], gpu_seconds=7200, gpus=1)
    monkeypatch.setenv(ATTEMPT_ENV, Attempt(number=1, record=record).to_json())
    run_finish(config)
    report, page = report_of(config), (Path(config.paths.output) / "report.html").read_text()
    assert report.record == record
    assert report.history is not None
    assert [point.step for point in report.history.points] == list(range(1, 61))
    assert report.scored_rows is not None
    assert "The tuned model is better than its base: exactMatch" in page
    assert "Succeeded</td>" in page
    assert report.samples[0].prompt in page


def test_a_page_that_cannot_be_made_fails_no_run(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "render", lambda report: 1 / 0)
    code, result = run_finish(fresh)
    assert code == 0
    assert result.evaluation is not None
    assert not (Path(fresh.paths.output) / "report.html").exists()


@pytest.mark.parametrize("method", list(MethodType))
def test_the_artifact_is_whole_and_says_nothing_of_this_machine(
    method: MethodType, trained: dict[MethodType, RunConfig], run_finish: Finish
) -> None:
    config = trained[method]
    run_finish(config)
    artifact = Path(config.paths.output) / "artifact"
    names = {path.name for path in artifact.iterdir()}
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md"} <= names
    weights = {"adapter_model.safetensors", "adapter_config.json"}
    assert (weights if method.adapts else {"model.safetensors", "config.json"}) <= names
    assert "training_args.bin" not in names
    for path in artifact.iterdir():
        assert str(config.paths.model).encode() not in path.read_bytes(), path.name
    assert (artifact / "tokenizer.json").read_bytes() == (Path(config.paths.model) / "tokenizer.json").read_bytes()
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(artifact.iterdir())
    )
    assert report_of(config).artifact.digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert "report.json" in (artifact / "README.md").read_text()
    assert "exactMatch" not in (artifact / "README.md").read_text(), "new scores must not change the digest"
    assert "| exactMatch | higher | 24 |" in (artifact.parent / "README.md").read_text()


def test_the_artifact_is_served_with_the_chat_template_of_the_run(
    trained: dict[MethodType, RunConfig], tmp_path: Path
) -> None:
    config = trained[MethodType.LORA]
    last = checkpoint.final_checkpoint(config)
    assert last is not None
    data = config.data.model_copy(update={"chat_template": ChatTemplate(name=ChatTemplateName.CHATML)})
    config = config.model_copy(update={"data": data})
    store_template(config, "{{ messages }}")
    export.export(config, last[0], tmp_path)
    (Path(config.paths.run) / "chat_template.jinja").unlink()
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (Path(config.paths.model) / "chat_template.jinja").read_text() == tiny.TEMPLATE


def test_full_weights_are_the_checkpoints_in_the_bases_data_type(
    trained: dict[MethodType, RunConfig], run_finish: Finish
) -> None:
    from safetensors.torch import load_file

    config = trained[MethodType.FULL]
    run_finish(config)
    exported = load_file(Path(config.paths.output) / "artifact" / "model.safetensors")
    last = checkpoint.final_checkpoint(config)[0]
    saved, base = load_file(last / "model.safetensors"), load_file(Path(config.paths.model) / "model.safetensors")
    assert exported.keys() == base.keys()
    assert all((exported[name] == saved[name]).all() for name in exported)
    assert any((exported[name] != base[name]).any() for name in exported)


def test_again_tells_the_same_without_work(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_finish(fresh)
    monkeypatch.setattr(finish, "_export", lambda _: pytest.fail("it was exported again"))
    monkeypatch.setattr(scoring, "score_rows", lambda *_: pytest.fail("it was scored again"))
    assert run_finish(fresh) == first


def test_a_changed_artifact_is_refused_and_its_old_digest_is_not_reported(
    fresh: RunConfig, run_finish: Finish, tmp_path: Path
) -> None:
    first = run_finish(fresh)
    output = Path(fresh.paths.output)
    shutil.copytree(output, tmp_path / "as-written")
    report = json.loads((output / "report.json").read_text())
    report["files"][0]["sha256"] = "0" * 64
    attacks: dict[str, Callable[[Path], object]] = {
        "'README.md' has other content": lambda at: (at / "README.md").write_bytes(
            (at / "README.md").read_bytes().swapcase()
        ),
        "'modeling.py' was added": lambda at: (at / "modeling.py").touch(),
        "'tokenizer.json' is missing": lambda at: (at / "tokenizer.json").unlink(),
        "'vocab.txt' is a link": lambda at: (at / "vocab.txt").symlink_to("/proc/self/environ"),
        "report.json has another digest": lambda at: (output / "report.json").write_text(json.dumps(report)),
    }
    for words, attack in attacks.items():
        attack(output / "artifact")
        code, result = run_finish(fresh)
        assert (code, result.verdict.failure_class, result.artifact) == (64, FailureClass.BAD_INPUT, None), words
        assert words in result.verdict.message
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "as-written", output)
    assert run_finish(fresh) == first


def test_the_bases_scores_are_made_once(fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_finish(fresh)
    shutil.rmtree(fresh.paths.output)
    Path(fresh.paths.output).mkdir()
    scored = []
    original = scoring.score_rows

    @functools.wraps(original)  # its name is part of what the scores are found by
    def score_rows(*args: Any) -> scoring.RowScores:
        scored.append(args[-1])
        return original(*args)

    monkeypatch.setattr(scoring, "score_rows", score_rows)
    second = run_finish(fresh)
    assert scored == ["tuned"]
    assert second == first, "the same checkpoint gives the same artifact and scores"


def test_a_final_checkpoint_that_was_changed_is_not_exported(
    fresh: RunConfig, run_finish: Finish, tmp_path: Path
) -> None:
    weights = checkpoint.final_checkpoint(fresh)[0] / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    code, result = run_finish(fresh)
    weights.write_bytes(original)
    assert (code, result.verdict.failure_class) == (64, FailureClass.BAD_INPUT)
    assert "spec.workspace: the checkpoint of step 60 was changed" in result.verdict.message
    assert "'model.safetensors' has other content" in result.verdict.message
    assert list(Path(fresh.paths.output).iterdir()) == []
    assert run_finish(fresh)[0] == 0


def out_of_memory(*_: object) -> None:
    """What torch does where a GPU's memory is full."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_failed_export_leaves_nothing_half_made(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(fresh.paths.output) / ".artifact-left").mkdir()
    monkeypatch.setattr(card, "write_card", out_of_memory)
    code, result = run_finish(fresh)
    assert (code, result.verdict.failure_class, result.artifact) == (65, FailureClass.OUT_OF_MEMORY, None)
    assert result.verdict.final is False
    assert list(Path(fresh.paths.output).iterdir()) == []


def test_a_failure_to_score_loses_nothing_and_scores_can_be_made_later(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_rows", out_of_memory)
        code, failed = run_finish(fresh)
    assert (code, failed.verdict.failure_class, failed.verdict.final) == (65, FailureClass.OUT_OF_MEMORY, True)
    assert "spec.evaluation.maxNewTokens" in failed.verdict.hint
    assert (failed.evaluation, failed.final_step) == (None, 60)
    assert report_of(fresh).artifact == failed.artifact
    assert report_of(fresh).evaluation is None
    assert (Path(fresh.paths.output) / "artifact" / "model.safetensors").is_file()

    monkeypatch.setattr(finish, "_export", lambda _: pytest.fail("it was exported again"))
    code, scored = run_finish(fresh)
    assert (code, scored.artifact) == (0, failed.artifact)
    assert scored.evaluation.scores[0].samples == 24


def test_the_artifact_is_reported_before_it_is_scored(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_ATTEMPT", Attempt(number=1, export_only=True).to_json())
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_rows", lambda *_: pytest.fail("it was scored"))
        code, exported = run_finish(fresh)
    assert (code, exported.evaluation, exported.verdict) == (0, None, None)
    assert report_of(fresh).artifact == exported.artifact
    monkeypatch.setenv("HONE_ATTEMPT", Attempt(number=1).to_json())
    code, scored = run_finish(fresh)
    assert (code, scored.artifact) == (0, exported.artifact)
    assert scored.evaluation.scores


def test_an_edited_evaluation_is_scored_again_and_the_artifact_stays(
    fresh: RunConfig, run_finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = run_finish(fresh)
    monkeypatch.setattr(finish, "_export", lambda _: pytest.fail("it was exported again"))
    edited = Evaluation(max_samples=10, max_new_tokens=2)
    monkeypatch.setenv("HONE_ATTEMPT", Attempt(number=2, evaluation=edited).to_json())
    code, second = run_finish(fresh)
    assert (code, second.artifact) == (0, first.artifact)
    assert [score.samples for score in second.evaluation.scores] == [10, 10]
    assert (report_of(fresh).max_new_tokens, report_of(fresh).evaluated_with) == (2, edited)
    monkeypatch.setattr(scoring, "score_rows", lambda *_: pytest.fail("it was scored again"))
    assert run_finish(fresh) == (code, second)


def test_an_output_without_a_whole_report_is_made_again(fresh: RunConfig, run_finish: Finish) -> None:
    run_finish(fresh)
    (Path(fresh.paths.output) / "report.json").write_text('{"version": 1')
    (Path(fresh.paths.output) / "artifact" / "stray").write_text("of another try")
    assert run_finish(fresh)[0] == 0
    assert not (Path(fresh.paths.output) / "artifact" / "stray").exists()
    assert json.loads((Path(fresh.paths.output) / "report.json").read_text())["finalStep"] == 60


def test_an_untrained_run_cannot_be_finished(tmp_path: Path, run_finish: Finish) -> None:
    (tmp_path / "a/model").mkdir(parents=True)
    code, result = run_finish(tiny.make_run(tmp_path / "a"))
    assert code == 70
    assert "no final checkpoint" in result.verdict.message


def test_rows_are_drawn_the_same_way_every_time() -> None:
    assert finish.chosen_rows(3, 5) == [0, 1, 2]
    drawn = finish.chosen_rows(1000, 50)
    assert drawn == finish.chosen_rows(1000, 50) == sorted(set(drawn))
    assert len(drawn) == 50
    assert drawn[-1] > 500, "not only the first"
