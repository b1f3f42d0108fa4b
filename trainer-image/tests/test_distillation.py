"""Distillation: a rank in this process learns from a tiny teacher, continues exactly, and finish scores it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from in_process import final_weights, finished, train_here

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.runconfig import RunConfig
from hone_trainer.models.facts import load_tokenizer, read_model
from hone_trainer.models.teacher import load_teacher, read_teacher
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.scores import divergences
from hone_trainer.training import callbacks


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, its teacher and prompts, and this process as the rank of every run here."""
    root = tmp_path_factory.mktemp("taught")
    tiny.make_run(root, objective=Objective.DISTILLATION, hidden=64, test_rows=60)
    with tiny.only_rank():
        yield root


@pytest.fixture
def rank(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Trains a run in this process, with `tiny.make_run`'s options; called again for the same name it continues."""

    def run(name: str = "run", **options: object) -> RunConfig:
        root = tmp_path / name
        fixed = {"objective": Objective.DISTILLATION, "shared": shared, "dropout": 0.0, "test_rows": 60}
        config = tiny.make_run(root, **{**fixed, "micro_batch": 8, **options})
        train_here(root, monkeypatch)
        return config

    return run


@pytest.mark.train
@pytest.mark.parametrize("method", list(MethodType))
def test_three_steps_of_each_method_end_in_a_model_that_chats(method: MethodType, rank: Callable, shared: Path) -> None:
    config = rank(method=method, steps=3, every=3, accumulation=2)
    report = finished(config)
    kind = "Adapter" if method.adapts else "Model"
    assert (report.artifact.kind, report.artifact.api, report.final_step) == (kind, "Chat", 3)
    (score,) = report.evaluation.scores
    assert (score.metric, score.samples, score.higher_is_better) == ("klToTeacher", 60, False)
    # Of the teacher nothing is kept.
    written = sum(path.stat().st_size for path in Path(config.paths.run).rglob("*") if path.is_file())
    student, teacher = (read_model(str(shared / name)).parameters for name in ("model", "teacher"))
    assert teacher > 2 * student
    assert written < 4 * (3 * student + teacher)


@pytest.mark.train
def test_it_comes_nearer_to_its_teacher(rank: Callable) -> None:
    report = finished(rank(method=MethodType.FULL, steps=80, every=80, micro_batch=32, learning_rate=2e-3))
    (score,) = report.evaluation.scores
    assert score.improvement.lower > 0
    assert score.tuned.value < 0.75 * score.base.value
    assert score.improvement.value == pytest.approx(score.base.value - score.tuned.value)
    assert all(sample.reference for sample in report.samples)
    matches = [(sample.base == sample.reference, sample.tuned == sample.reference) for sample in report.samples]
    assert sum(tuned for _, tuned in matches) > sum(base for base, _ in matches)


@pytest.mark.train
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    rank: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four steps a pass of 256 prompts: the stop is in the second one.
    plan = {"method": MethodType.LORA, "steps": 8, "every": 100, "accumulation": 8, "learning_rate": 1e-3}
    whole = rank("whole", **plan)
    original = callbacks.Checkpointing.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            self._status.raise_stop()
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpointing, "on_step_end", on_step_end)
        with pytest.raises(Preempted, match="at step 6"):
            rank("cut", **plan)
    (tmp_path / "cut/status/stop").unlink()
    cut = rank("cut", **plan)
    first, second = final_weights(whole), final_weights(cut)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) == 0.0


# The score.


def speaker(table: list[list[float]]) -> torch.nn.Module:
    """A model whose next word depends on the last one alone: row i of the table holds the logits after word i."""
    logits = torch.tensor(table)
    model = torch.nn.Module()
    model.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(table)))
    model.device = torch.device("cpu")
    model.forward = lambda input_ids, **_: SimpleNamespace(logits=logits[input_ids])
    return model


def test_the_divergence_is_from_the_teacher_to_the_model_over_the_answers_tokens_alone() -> None:
    even, half = [0.0, 0.0], [np.log(0.75), np.log(0.25)]
    teacher, model = speaker([half, even]), speaker([even, half])
    # After word 0 the teacher is (3/4, 1/4) and the model even; after word 1 it is the other way around.
    after_0 = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    after_1 = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    values = divergences.divergences(teacher, model, [[0], [1, 1, 0]], [[1, 0], [0]])
    assert values.tolist() == pytest.approx([(after_0 + after_1) / 2, after_0], abs=1e-6)
    assert divergences.divergences(teacher, teacher, [[0]], [[1]]).tolist() == [0.0]


def test_a_smaller_divergence_is_an_improvement() -> None:
    score = divergences.compare(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.5]))
    assert (score.base.value, score.tuned.value, score.improvement.value) == (2.0, 1.0, 1.0)
    assert score.improvement.lower > 0


# What is refused.


def test_a_teacher_with_another_vocabulary_is_refused_with_both_sizes(shared: Path, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path / "run", objective=Objective.DISTILLATION, shared=shared)
    student = read_model(config.paths.model)
    assert read_teacher(config, student, 16).parameters > student.parameters
    with pytest.raises(
        BadInput, match=r"vocab_size in its config.json is 22, less than the base model's 30"
    ) as refused:
        read_teacher(config, replace(student, vocab_size=30), 16)
    assert refused.value.field == "spec.teacher"
    with pytest.raises(BadInput, match="context has 64 tokens, but the longest prompt and answer together have 65"):
        read_teacher(config, student, 65)


def padded_teacher(shared: Path, directory: Path, config: RunConfig) -> RunConfig:
    """The run with its teacher padded to 30 entries, whose logits are not small."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(shared / "teacher", directory)
    teacher = AutoModelForCausalLM.from_pretrained(directory)
    teacher.resize_token_embeddings(30, mean_resizing=False)
    teacher.get_output_embeddings().weight.data[22:] = 9 * teacher.get_output_embeddings().weight.data[5:13]
    teacher.save_pretrained(directory)
    return config.model_copy(update={"paths": config.paths.model_copy(update={"teacher": str(directory)})})


def test_a_teacher_may_be_padded_which_is_cut_off(shared: Path, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path / "run", objective=Objective.DISTILLATION, shared=shared)
    padded = padded_teacher(shared, tmp_path / "padded", config)
    student = read_model(config.paths.model)
    assert read_teacher(padded, student, 16).vocab_size == 30
    alone, cut = load_teacher(config, torch.float32), load_teacher(padded, torch.float32)
    assert cut.config.vocab_size == 22
    ids = torch.arange(22)[None]
    assert torch.equal(cut(ids).logits, alone(ids).logits)


def test_a_teacher_with_tokens_that_the_base_has_no_room_for_is_refused(shared: Path, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path / "run", objective=Objective.DISTILLATION, shared=shared)
    padded = padded_teacher(shared, tmp_path / "padded", config)
    tokenizer = load_tokenizer(padded.paths.teacher)
    tokenizer.add_tokens(["igloo"])
    tokenizer.save_pretrained(padded.paths.teacher)
    with pytest.raises(
        BadInput, match=r"has 1 tokens, such as 'igloo', whose ids are not below the base model's vocab_size of 22"
    ) as refused:
        read_teacher(padded, read_model(config.paths.model), 16)
    assert refused.value.field == "spec.teacher"
    shutil.copytree(config.paths.model, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    padded = padded.model_copy(update={"paths": padded.paths.model_copy(update={"model": str(tmp_path / "model")})})
    assert read_teacher(padded, read_model(padded.paths.model), 16), "the base's tokenizer has it, too"


def test_a_teacher_that_numbers_its_words_otherwise_is_refused(shared: Path, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path / "run", objective=Objective.DISTILLATION, shared=shared)
    other = tiny.make_model(tmp_path / "teacher", seed=3)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["apple"], words["bread"] = words["bread"], words["apple"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = config.model_copy(update={"paths": config.paths.model_copy(update={"teacher": str(other)})})
    with pytest.raises(BadInput, match="2 of the base model's 22 tokens, such as") as refused:
        read_teacher(config, read_model(config.paths.model), 16)
    assert "same model family" in (refused.value.hint or "")


def test_what_is_no_model_is_refused_as_the_teacher(shared: Path, tmp_path: Path) -> None:
    config = tiny.make_run(tmp_path / "run", objective=Objective.DISTILLATION, shared=shared)
    config = config.model_copy(update={"paths": config.paths.model_copy(update={"teacher": str(tmp_path)})})
    with pytest.raises(BadInput) as refused:
        read_teacher(config, read_model(config.paths.model), 16)
    assert refused.value.field.startswith("spec.teacher")
