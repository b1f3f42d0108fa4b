"""Models of many families: mixtures of experts, and language models that also read images."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file

from dev.architectures.families import FAMILIES, make
from hone.contract.methods import MethodType
from hone.contract.report import Report
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Lora, Method
from hone_trainer import finish, train
from hone_trainer.methods import METHODS
from hone_trainer.models.adapters import lora_config
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.loading import load_adapter, load_config, load_model
from hone_trainer.models.modules import read_base
from hone_trainer.models.served_adapters import WITHOUT_ADAPTERS, serves_adapters
from hone_trainer.prepare import prepare
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import PlanFile, load_plan
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A tiny model of each family, made when it is first needed, with this process as the only rank."""
    root = tmp_path_factory.mktemp("families")

    class Models(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = make(name, root / name.replace(" ", "-"))
            return self[name]

    with tiny.only_rank():
        yield Models()


def config_of(model: Path, root: Path, method: dict[str, Any]) -> RunConfig:
    """A run of two steps on sums of digits."""
    (root / "output").mkdir(parents=True)
    (root / "status").mkdir()
    rows = [{"prompt": f"{a}+{b} in {a * 8 + b}=", "completion": str(a + b)} for a in range(8) for b in range(8)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "team-a", "name": "family", "uid": "0"},
            "modelName": "family",
            "method": method,
            "hyperparameters": {"maxSteps": 2, "globalBatchSize": 4, "learningRate": 0.01, "packing": False},
            "data": {"train": str(root / "rows.jsonl"), "minSamples": 1},
            "topology": {"gpusPerNode": 0, "processesPerNode": 1},
            "evaluation": {"maxSamples": 4, "maxNewTokens": 2},
            "paths": {"model": str(model), **{name: str(root / name) for name in ("workspace", "run", "output")}},
        }
    )
    (root / "run.json").write_text(config.to_json())
    return config


def run(model: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **method: Any) -> tuple[RunConfig, PlanFile, Report]:
    """Prepare, train and finish in this process."""
    config = config_of(model, root, method)
    monkeypatch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    planned = prepare(config)
    train._train(0, StatusDir(root / "status"))
    assert finish.main() == 0, (root / "term").read_text()
    return config, planned, Report.model_validate_json((root / "output/report.json").read_text())


def artifact(config: RunConfig) -> Path:
    return Path(config.paths.output) / "artifact"


def weights(directory: Path) -> dict[str, Any]:
    """All tensors of a model, or an adapter, by name."""
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what every saved model has of its own."""
    own = {"_name_or_path", "dtype"}
    return {k: settings(v) if isinstance(v, dict) else v for k, v in config.items() if k not in own}


COUNTED = (
    "Llama",
    "GPT-2",
    "Falcon",
    "Phi3",
    "Mixtral",
    "Qwen3-Next",
    "DeepSeek-V3",
    "gpt-oss",
    "Granite-MoE",
    "Gemma3",
)
"""One of each way to name and to store layers."""


@pytest.mark.parametrize("family", COUNTED)
def test_what_is_counted_is_what_libraries_train_and_quantize(
    family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit
    from peft import get_peft_model

    facts = read_base(str(models[family]), CHAT, Method(type=MethodType.LORA))
    model = load_model(CHAT.model_class(), models[family])
    assert facts.parameters == model.num_parameters()
    adapter = lora_config(model, CHAT, None, rank=8, alpha=8, dropout=0.0)
    assert facts.lora_parameters(8) == get_peft_model(model, adapter).get_nb_trainable_parameters()[0]
    planned = load_plan(tiny.make_run(tmp_path / "planned", method=MethodType.QLORA))
    assert planned
    config = config_of(models[family], tmp_path / "run", {"type": "QLoRA"})
    quantized = METHODS[MethodType.QLORA].load_base(CHAT.model_class(), config, planned.plan)
    assert set(facts.quantized) == {
        name for name, module in quantized.named_modules() if isinstance(module, Linear4bit)
    }


def test_targets_are_layers_of_the_model(models: dict[str, Path]) -> None:
    def adapted(family: str, *targets: str) -> set[str]:
        facts = read_base(str(models[family]), CHAT, Method(lora=Lora(target_modules=list(targets))))
        return {part.name.rpartition(".")[2] for part in facts.adapted}

    assert adapted("Llama", "q_proj", "down_proj") == {"q_proj", "down_proj"}
    assert adapted("Mixtral", "q_proj") == {"q_proj"}
    with pytest.raises(BadInput) as refused:
        adapted("Llama", "q_proj", "query")
    assert refused.value.field == "spec.method.lora.targetModules"
    assert refused.value.message == "`query` is not a linear layer of this model"
    assert refused.value.hint.startswith("Use one of down_proj, gate_proj, k_proj")
    # Experts by the names that they have in the files; PEFT fuses the first two.
    assert adapted("Mixtral", "w1", "w3") == {"experts"}
    with pytest.raises(BadInput, match=r"targetModules: Cannot convert PEFT target"):
        adapted("Mixtral", "w1")
    facts = read_base(str(models["Gemma3"]), CHAT, Method(lora=Lora(target_modules=["q_proj"])))
    assert len(facts.adapted) == 2 and not any("vision" in part.name for part in facts.adapted)


@pytest.mark.parametrize("family", ["Mixtral", "GPT-2"])
def test_an_adapter_that_vllm_does_not_serve_is_exported_merged(
    family: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on experts, and one of a family that vLLM serves whole only."""
    import torch

    base = models[family]
    config, planned, report = run(base, tmp_path, monkeypatch, type="LoRA")
    assert "merged into a whole model" in planned.plan.reasons["method"] and report.artifact.kind == "Model"
    last = checkpoint.final_checkpoint(config)
    assert last
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        tuned = load_adapter(load_model(CHAT.model_class(), base), last[0]).eval()(ids).logits
        merged = load_model(CHAT.model_class(), artifact(config)).eval()(ids).logits
        before = load_model(CHAT.model_class(), base).eval()(ids).logits
    assert (merged - tuned).abs().max() < 1e-3 < (merged - before).abs().max()


def test_the_families_without_adapters_are_known_to_transformers() -> None:
    from transformers import CONFIG_MAPPING

    assert not {name for name in WITHOUT_ADAPTERS if name not in CONFIG_MAPPING}
    assert serves_adapters("llama") and not serves_adapters("falcon")


def test_a_step_keeps_a_copy_of_the_experts_that_adapters_change(models: dict[str, Path]) -> None:
    import torch
    from peft import get_peft_model

    facts = read_base(str(models["Mixtral"]), CHAT, Method())
    model = load_model(CHAT.model_class(), models["Mixtral"])
    sizes = {parameter.nbytes for name, parameter in model.named_parameters() if name in facts.experts}
    adapted = get_peft_model(model, lora_config(model, CHAT, None, rank=8, alpha=8, dropout=0.0)).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in adapted.parameters()}
    copies: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() in sizes and storage.data_ptr() not in own:
            copies[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        adapted(input_ids=torch.arange(5, 25)[None]).logits.sum()
    # With the experts, their router is adapted, too.
    assert sum(copies.values()) == 4 * facts.expert_parameters == pytest.approx(4 * facts.adapted_experts, rel=0.01)


def test_attentions_adapter_on_a_mixture_of_experts_is_one_that_is_served(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config, _, report = run(
        models["Granite-MoE"], tmp_path, monkeypatch, type="LoRA", lora={"targetModules": attention}
    )
    assert (report.artifact.kind, report.artifact.lora_rank) == ("Adapter", 32)
    assert {name.split(".")[-3] for name in weights(artifact(config))} == set(attention)


@pytest.mark.parametrize("family", ["Qwen3-MoE", "Gemma3", "Qwen3-VL"])
def test_a_whole_model_has_the_config_of_its_base_and_trains_what_text_passes(
    family: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models[family] / "preprocessor_config.json").write_text("{}")  # a server needs it for models that read images
    config, planned, report = run(models[family], tmp_path, monkeypatch, type="Full")
    assert report.artifact.kind == "Model" and (artifact(config) / "preprocessor_config.json").is_file()
    ours, theirs = (settings(load_config(place).to_dict()) for place in (artifact(config), models[family]))
    assert ours == theirs
    before, after = weights(models[family]), weights(artifact(config))
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not tensor.equal(after[name])}
    others = {name for name in before if any(part in name for part in ("vision", "visual", "projector"))}
    assert changed == before.keys() - others
    assert bool(others) == (FAMILIES[family].kind == "multimodal")
    assert planned.plan.trainable_parameters == planned.plan.parameters - sum(before[name].numel() for name in others)


def test_an_adapter_leaves_the_vision_tower_alone(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, planned, report = run(models["Mistral3"], tmp_path, monkeypatch, type="LoRA", lora={"rank": 4})
    assert report.artifact.kind == "Adapter"
    tensors = weights(artifact(config))
    assert sum(tensor.numel() for tensor in tensors.values()) == planned.plan.trainable_parameters
    assert all("language_model" in name for name in tensors)


def test_an_only_process_trains_without_ddp(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone_trainer.objectives.trainer import TrainerMixin

    wrapped = []
    step = TrainerMixin.training_step

    def observed(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        wrapped.append(type(model).__name__)
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "training_step", observed)
    run(models["Qwen2"], tmp_path, monkeypatch, type="Full")
    assert set(wrapped) == {"Qwen2ForCausalLM"}


def test_a_model_whose_language_model_cannot_be_trained_alone_is_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    config = json.loads((models["Mistral3"] / "config.json").read_text())
    shutil.copytree(models["Mistral3"], tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(BadInput, match=r"llava reads images, too") as refused:
        read_base(str(tmp_path / "model"), CHAT, Method())
    assert refused.value.hint.startswith("Choose a text model, or one of Gemma 3, Mistral 3")
