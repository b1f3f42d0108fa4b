"""Classification and freezing: a rank in this process trains, finish scores, on a tiny model; and their parts alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.report import Report
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Freeze
from hone_trainer import finish, train
from hone_trainer.data.classes import Classes
from hone_trainer.models import head
from hone_trainer.models.freezing import is_frozen
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint

CLASSES = Classes(("bad", "good", "so-so"), (5, 3, 1))


@pytest.fixture(scope="module")
def only_rank() -> Iterator[None]:
    """This process as the rank of every run here."""
    with tiny.only_rank():
        yield


@pytest.fixture
def run(only_rank: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], Path]:
    """Trains and finishes a run in this process; gives its artifact."""

    def to_the_end(config: RunConfig) -> Path:
        root = Path(config.paths.output).parent
        monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
        monkeypatch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
        (root / "status").mkdir()
        train._train(0, StatusDir(root / "status"))
        assert finish.main() == 0, (root / "term").read_text()
        return Path(config.paths.output) / "artifact"

    return to_the_end


def report_of(artifact: Path) -> Report:
    return Report.model_validate_json((artifact.parent / "report.json").read_text())


@pytest.mark.train
@pytest.mark.parametrize("method", [MethodType.LORA, MethodType.QLORA])
def test_it_beats_the_most_frequent_class_and_is_served_with_its_classes_names(
    method: MethodType, run: Callable[[RunConfig], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    config = tiny.make_run(
        tmp_path,
        objective=Objective.CLASSIFICATION,
        method=method,
        steps=60,
        every=60,
        micro_batch=32,
        hidden=64,
        test_rows=40,
    )
    artifact = run(config)
    report = report_of(artifact)
    assert (report.artifact.kind, report.artifact.api, report.artifact.lora_rank) == ("Model", "Classify", None)
    f1, accuracy, calibration = report.evaluation.scores
    assert (f1.metric, f1.samples) == ("macroF1", 40)
    assert f1.improvement.lower > 0
    assert f1.tuned.lower > f1.base.upper
    assert accuracy.tuned.value > 0.9
    assert calibration.tuned.value < 0.3

    # What a server loads knows the classes, and gives the probabilities that stand in the report.
    model = AutoModelForSequenceClassification.from_pretrained(artifact).eval()
    assert list(model.config.id2label.values()) == list(tiny.LABELS)
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    assert len(report.samples) == 20
    for sample in report.samples:
        with torch.inference_mode():
            logits = model(**tokenizer(sample.prompt, return_tensors="pt")).logits[0]
        served = dict(zip(tiny.LABELS, torch.softmax(logits, dim=-1).tolist(), strict=True))
        assert served == pytest.approx(sample.probabilities, abs=1e-4)
        assert max(served, key=served.get) == sample.tuned
    assert 'pipeline_tag: "text-classification"' in (artifact / "README.md").read_text()


@pytest.mark.train
def test_several_classes_are_learned_each_by_itself_and_served_with_a_probability_each(
    run: Callable[[RunConfig], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = tiny.make_model(tmp_path / "model", hidden=64)
    tiny.make_labeled(tmp_path / "workspace/prepared/tiny", model, test_rows=40, several=True)
    config = tiny.make_run(
        tmp_path, objective=Objective.CLASSIFICATION, steps=80, every=80, micro_batch=16, accumulation=2, hidden=64
    )
    artifact = run(config)
    report = report_of(artifact)
    scores = {score.metric: score for score in report.evaluation.scores}
    assert list(scores) == ["macroF1", "microF1", "subsetAccuracy"]
    assert all(score.improvement.lower > 0 for score in scores.values())
    assert scores["microF1"].tuned.value > 0.85

    model = AutoModelForSequenceClassification.from_pretrained(artifact).eval()
    assert model.config.problem_type == "multi_label_classification", "by which servers take a sigmoid of each"
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    for sample in report.samples:
        with torch.inference_mode():
            logits = model(**tokenizer(sample.prompt, return_tensors="pt")).logits[0]
        served = dict(zip(tiny.LABELS, torch.sigmoid(logits).tolist(), strict=True))
        assert served == pytest.approx(sample.probabilities, abs=1e-4)
        assert sample.tuned == (", ".join(name for name, share in served.items() if share >= 0.5) or "(none)")


@pytest.mark.train
def test_frozen_weights_stay_as_they_were_and_all_others_change(
    run: Callable[[RunConfig], Path], tmp_path: Path
) -> None:
    freeze = Freeze(layers=1, embeddings=True)
    config = tiny.make_run(tmp_path, method=MethodType.FULL, freeze=freeze, steps=4, every=4, learning_rate=1e-3)
    exported = load_file(run(config) / "model.safetensors")
    base = load_file(Path(config.paths.model) / "model.safetensors")
    assert exported.keys() == base.keys()
    unchanged = {name for name in base if torch.equal(base[name], exported[name])}
    assert unchanged == {name for name in base if "layers.0." in name or "embed_tokens" in name}
    (last, _) = checkpoint.final_checkpoint(config)
    moments = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    assert len(moments) == len(base) - len(unchanged), "no optimizer state for what is frozen"


# The loss.


def loss_of(logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None, items: int | None) -> torch.Tensor:
    from hone_trainer.objectives.classification import cross_entropy

    return cross_entropy(weights)(SimpleNamespace(logits=logits), labels, num_items_in_batch=items)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, generator=chance), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize("weights", [None, CLASSES.weights()])
def test_the_loss_does_not_depend_on_how_a_step_is_cut(weights: list[float] | None) -> None:
    logits, labels = rows()
    whole = loss_of(logits, labels, weights, 8)
    for cut in (1, 4, 7):
        parts = [loss_of(logits[part], labels[part], weights, 8) for part in (slice(cut), slice(cut, None))]
        assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_loss_weighs_each_row_by_its_class() -> None:
    logits, labels = rows()
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert loss_of(logits, labels, None, None).item() == pytest.approx(each.mean().item())
    weighed = (each * torch.tensor([1.0, 2.0, 4.0])[labels]).mean()
    assert loss_of(logits, labels, [1.0, 2.0, 4.0], None).item() == pytest.approx(weighed.item())


def test_the_loss_of_several_classes_weighs_the_rows_that_have_a_class() -> None:
    from hone_trainer.objectives.classification import binary_cross_entropy

    logits, _ = rows()
    labels = (torch.arange(24).reshape(8, 3) % 4 == 0).float()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    whole = binary_cross_entropy(None)(SimpleNamespace(logits=logits), labels)
    assert whole.item() == pytest.approx(each.mean().item())
    weighed = (each * torch.where(labels == 1, torch.tensor([1.0, 2.0, 4.0]), torch.tensor(1.0))).mean()
    loss = binary_cross_entropy([1.0, 2.0, 4.0])
    assert loss(SimpleNamespace(logits=logits), labels).item() == pytest.approx(weighed.item())
    parts = [loss(SimpleNamespace(logits=logits[part]), labels[part], 24) for part in (slice(3), slice(3, None))]
    assert sum(parts).item() == pytest.approx(weighed.item()), "however a step is cut"


def test_a_batch_has_a_1_for_each_class_of_a_row() -> None:
    from hone_trainer.objectives.classification import WithClasses

    collate = WithClasses(lambda rows: {"input_ids": torch.tensor([row["input_ids"] for row in rows])}, 3)
    batch = collate([{"input_ids": [4], "label": [0, 2]}, {"input_ids": [5], "label": []}])
    assert batch["labels"].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


# The head.


def test_the_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    base = tiny.make_model(tmp_path)

    def drawn(before: int, seed: int) -> torch.Tensor:
        torch.manual_seed(before)
        model = AutoModelForSequenceClassification.from_pretrained(base, **head.settings(CLASSES))
        head.initialize(model, seed)
        return head.head_of(model).weight.detach()

    first = drawn(before=1, seed=7)
    assert first.shape == (3, 32)
    assert torch.equal(first, drawn(before=2, seed=7)), "whatever was drawn before"
    assert not torch.equal(first, drawn(before=1, seed=8))
    assert first.std().item() == pytest.approx(0.3, rel=0.3), "the model's own scale"


# Freezing.


@pytest.mark.parametrize(
    ("name", "freeze", "frozen"),
    [
        ("model.layers.0.mlp.up_proj.weight", Freeze(layers=1), True),
        ("model.layers.1.mlp.up_proj.weight", Freeze(layers=1), False),
        ("model.layers.10.mlp.up_proj.weight", Freeze(layers=2), False),
        ("model.layers.3.mlp.experts.0.up_proj.weight", Freeze(layers=2), False),
        ("h.0.attn.c_attn.weight", Freeze(layers=1), True),
        ("model.embed_tokens.weight", Freeze(layers=1), False),
        ("model.embed_tokens.weight", Freeze(embeddings=True), True),
        ("transformer.wte.weight", Freeze(embeddings=True), True),
        ("lm_head.weight", Freeze(layers=1, embeddings=True), False),
        ("score.weight", Freeze(layers=1, embeddings=True), False),
        ("model.norm.weight", Freeze(layers=1, embeddings=True), False),
    ],
)
def test_what_is_frozen_is_told_by_the_name(name: str, freeze: Freeze, frozen: bool) -> None:
    assert is_frozen(name, freeze) is frozen


def test_labels_of_the_tiny_data_are_the_rows_own(tmp_path: Path) -> None:
    from hone_trainer.data.prepared import load_prepared

    prepared: Any = load_prepared(tiny.make_labeled(tmp_path / "data", tiny.make_model(tmp_path / "model")))
    assert all(row["reference"] == prepared.classes.names[row["label"]] for row in prepared.test)
