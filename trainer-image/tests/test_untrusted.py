"""What a model's files may ask for: no code, no other files, no pickles; whatever library would read them."""

import ast
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import hone_trainer
from hone.contract.runconfig import RunConfig
from hone_trainer import prepare
from hone_trainer.models import loading, untrusted
from hone_trainer.models.architectures import CHAT, CLASSIFIER
from hone_trainer.models.facts import load_tokenizer, read_model
from hone_trainer.models.trial import check_loads
from hone_trainer.models.untrusted import check_model
from hone_trainer.protocol.errors import BadInput


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))


CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "code of a model": ("config.json", {"auto_map": CODE, "model_type": "evil"}),
    "code of a class that is not built in": ("config.json", {"auto_map": CODE, "architectures": ["EvilForCausalLM"]}),
    "code of a class of another type": ("config.json", {"auto_map": CODE, "architectures": ["Phi3ForCausalLM"]}),
    "code of one class of two": ("config.json", {"auto_map": CODE, "architectures": ["LlamaForCausalLM", "Evil"]}),
    "code of no class": ("config.json", {"auto_map": CODE, "architectures": None}),
    "code of a class that is no name": ("config.json", {"auto_map": CODE, "architectures": [["LlamaForCausalLM"]]}),
    "code of another repository": (
        "config.json", {"auto_map": {"AutoModelForCausalLM": "evil/repo--evil.Model"}, "architectures": ["Evil"]},
    ),
    "code that is no name": ("config.json", {"auto_map": {"AutoConfig": 5}}),
    "code as a list": ("config.json", {"auto_map": ["evil.Config"]}),
    "code in a part": ("config.json", {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}),
    "a pipeline": ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Pipeline"}}}),
    "attention from a repository": ("config.json", {"attn_implementation": "evil/kernel"}),
    "attention from a revision": ("config.json", {"_attn_implementation": "evil/kernel@main:attend"}),
    "attention that is internal": ("config.json", {"_attn_implementation_internal": "paged|evil/kernel"}),
    "attention from a path": ("config.json", {"attn_implementation": "/mnt/workspace/evil"}),
    "attention of a part": ("config.json", {"attn_implementation": {"text_config": "evil/kernel"}}),
    "experts": ("config.json", {"experts_implementation": "evil/kernel"}),
    "a known quantization": ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    "an unknown quantization": ("config.json", {"quantization_config": {"quant_method": "evil"}}),
    "a quantized part": ("config.json", {"text_config": {"quantization_config": {"quant_method": "awq"}}}),
    "compressed tensors": ("config.json", {"compression_config": {"format": "evil"}}),
    "weights elsewhere": ("config.json", {"transformers_weights": "../../workspace/x.safetensors"}),
    "weights that are a pickle": ("config.json", {"transformers_weights": "pytorch_model.bin"}),
    "fused layers": ("config.json", {"fusion_config": {"rmsnorm": "evil/kernel"}}),
    "a generation mode": ("generation_config.json", {"custom_generate": "evil/repo"}),
    "trust in the file itself": ("generation_config.json", {"trust_remote_code": True}),
    "a mode from the hub": ("generation_config.json", {"penalty_alpha": 0.6, "top_k": 4}),
    "beams from the hub": ("generation_config.json", {"num_beam_groups": 2, "num_beams": 2}),
    "generation in the config": ("config.json", {"dola_layers": "low"}),
    "code of a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    "code of a tokenizer as a list": ("tokenizer_config.json", {"auto_map": ["evil.Tokenizer", None]}),
    "a vocabulary elsewhere": ("tokenizer_config.json", {"vocab_file": "/proc/self/environ"}),
    "merges elsewhere": ("tokenizer_config.json", {"merges_file": "../../workspace/merges.txt"}),
    "a tokenizer elsewhere": ("tokenizer_config.json", {"tokenizer_file": "/mnt/workspace/tokenizer.json"}),
    "another config": ("config.json", {"configuration_files": ["config.4.0.0.json"]}),
    "another tokenizer": ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}),
    "a GGUF file": ("tokenizer_config.json", {"gguf_file": "evil.gguf"}),
    "arguments by position": ("tokenizer_config.json", {"init_inputs": ["/proc/self/environ"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_asks_for_code_or_other_files_is_refused(model: Path, case: str) -> None:
    name, values = HOSTILE[case]
    change(model / name, **values)
    with pytest.raises(BadInput) as refused:
        check_model(model, "spec.teacher")
    assert refused.value.field == "spec.teacher"
    assert name in refused.value.message and any(key in refused.value.message for key in _keys(values))
    assert refused.value.hint
    for read in (read_model, load_tokenizer, loading.load_config):
        with pytest.raises(BadInput, match=r"spec\.model: `"):
            read(str(model))


def _keys(values: Any) -> list[str]:
    return [key for key, _ in untrusted._entries(values)]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", sorted(untrusted.REFUSED))
def test_every_key_is_refused_in_its_files_also_deep_inside_and_not_where_it_is_unset(
    model: Path, name: str, key: str
) -> None:
    before = (model / name).read_text()
    for unset in (None, False, "", [], {}):
        change(model / name, **{key: unset})
        check_model(model, "spec.model")
    for value in ({key: "evil/x"}, {"a": [{"b": {key: {"": "evil/x"}}}]}):
        (model / name).write_text(before)
        change(model / name, **value)
        if name in untrusted.REFUSED[key].files:
            with pytest.raises(BadInput, match=f"`{key}` in {name}"):
                check_model(model, "spec.model")
        else:
            check_model(model, "spec.model")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"attn_implementation": "sdpa", "_attn_implementation": "eager", "num_beam_groups": 1}),
        ("config.json", {"num_local_experts": 0, "num_experts_per_tok": 0}),
        ("config.json", {"_name_or_path": "/data/llama", "penalty_alpha": 0, "quantization_config": None}),
        ("tokenizer_config.json", {"special_tokens_map_file": "/home/a/.cache/x", "name_or_path": "/data/llama"}),
    ],
)
def test_what_usual_models_have_is_accepted(model: Path, name: str, values: dict[str, Any]) -> None:
    change(model / name, **values)
    read_model(str(model))
    load_tokenizer(str(model))


EVIL = "from pathlib import Path\nPath({trace!r}).write_text('imported')\nraise SystemExit\n"


def test_the_old_code_of_a_model_that_is_built_in_is_neither_run_nor_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    trace, saved = tmp_path / "trace", tmp_path / "saved"
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoTokenizer")
    change(model / "config.json", auto_map=dict.fromkeys(names, "evil.Evil"))
    for name in ("evil.py", "__init__.py", "configuration_llama.py", "modeling_llama.py", "tokenization_llama.py"):
        (model / name).write_text(EVIL.format(trace=str(trace)))
    before = set(sys.modules)
    assert not hasattr(loading.load_config(model), "auto_map")
    read_model(str(model))
    check_loads(model, CHAT, "spec.model")
    load_tokenizer(str(model))
    loaded = loading.load_model(AutoModelForCausalLM, model)
    loaded.save_pretrained(saved)
    assert not trace.exists()
    assert not [name for name in set(sys.modules) - before if "transformers_modules" in name or "evil" in name]
    assert type(loaded).__module__ == "transformers.models.llama.modeling_llama"
    assert "auto_map" not in json.loads((saved / "config.json").read_text())
    assert not list(saved.glob("*.py"))
    # This test would see it if the code were run.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit):
        AutoConfig.from_pretrained(str(model), trust_remote_code=True)
    assert trace.read_text() == "imported"


class _Attack:
    """Unpickled, it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.trace, "ran")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.ckpt", "model.pkl"])
def test_weights_that_exist_only_as_pickles_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(_Attack(tmp_path / "trace")))
    with pytest.raises(BadInput, match=f"its weights are pickles, which can run code: {name}") as refused:
        read_model(str(model))
    assert "save_pretrained" in str(refused.value.hint)
    assert not (tmp_path / "trace").exists()


def test_a_pickle_next_to_safetensors_is_not_loaded(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin"):
        (model / name).write_bytes(pickle.dumps(_Attack(tmp_path / "trace")))
    assert loading.load_model(AutoModelForCausalLM, model).config.hidden_size == 32
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "name", ["custom_generate/generate.py", ".metadata", "shard-00000-model-00001-of-00002.safetensors"]
)
def test_files_that_change_how_a_model_is_loaded_are_refused(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("")
    with pytest.raises(BadInput, match=name.split("/")[0]):
        read_model(str(model))


def test_an_adapter_in_a_model_is_refused_which_transformers_would_load_without_a_word(model: Path) -> None:
    change(model / "adapter_config.json", peft_type="LORA", base_model_name_or_path="/mnt/workspace/other")
    with pytest.raises(BadInput, match=r"adapter_config.json next to config.json"):
        read_model(str(model))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as PEFT writes it, over the tiny model of train's tests, which is next to it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny.make_model(root / "base"))
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(root / "adapter")
    return root / "adapter"


def test_an_adapter_as_peft_writes_it_is_loaded(adapter: Path) -> None:
    from transformers import AutoModelForCausalLM

    change(adapter / "adapter_config.json", modules_to_save=["classifier", "score"])  # as with a new head
    check_model(adapter, "spec.model")
    change(adapter / "adapter_config.json", modules_to_save=None)
    base = loading.load_model(AutoModelForCausalLM, adapter.parent / "base")
    assert loading.load_adapter(base, adapter).peft_config["default"].r == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("auto_mapping", {"base_model_class": "Popen", "parent_library": "subprocess"}),
        ("megatron_core", "evil.core"),
        ("megatron_config", {"x": 1}),
        ("target_modules", "(a+)+$"),
        ("target_modules", [{"a": 1}]),
        ("modules_to_save", ["embed_tokens"]),
        ("modules_to_save", ["score", 7]),
        ("modules_to_save", "(a+)+$"),
        ("exclude_modules", "(a+)+$"),
        ("rank_pattern", {"(a+)+$": 8}),
        ("rank_pattern", {".*\\.gate_up_proj": 10**9}),
        ("alpha_pattern", {"gate_up_proj": "x"}),
        ("target_parameters", [{"a": 1}]),
        ("target_parameters", "(a+)+$"),
        ("layers_pattern", "(a+)+$"),
        ("init_lora_weights", "pissa_niter_1000000"),
        ("layer_replication", [[0, 10**6]]),
        ("r", "4"),
        ("r", None),
        ("base_model_name_or_path", ["/proc"]),
        ("lora_alpha", "x"),
    ],
)
def test_an_adapter_that_is_more_than_a_plain_lora_is_refused(
    adapter: Path, tmp_path: Path, key: str, value: Any
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    change(tmp_path / "adapter/adapter_config.json", **{key: value})
    with pytest.raises(BadInput, match="adapter"):
        check_model(tmp_path / "adapter", "spec.model")


def test_an_adapter_whose_weights_are_a_pickle_is_not_loaded(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/other.safetensors")
    (tmp_path / "adapter/adapter_model.bin").write_bytes(pickle.dumps(_Attack(tmp_path / "trace")))
    with pytest.raises(BadInput, match=r"there is no adapter_model.safetensors"):
        loading.load_adapter(None, tmp_path / "adapter")  # type: ignore[arg-type]
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("name", "size"),
    [("config.json", 4 << 20), ("generation_config.json", 4 << 20), ("chat_template.jinja", 1 << 20)],
)
def test_files_are_limited_in_size(model: Path, name: str, size: int) -> None:
    with (model / name).open("ab") as file:
        file.truncate(size + 1)
    with pytest.raises(BadInput, match=f"{name} has {size + 1} bytes"):
        read_model(str(model))


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 50_000, "null", "7", "", "{", '{"a": NaN', "\0", '"\ud800"']
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_what_is_no_object_is_refused(model: Path, name: str, content: str) -> None:
    (model / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadInput, match=name):
        read_model(str(model))


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_weights(file: Path, header: Any, tensors: bytes, length: int | None = None) -> None:
    text = json.dumps(header).encode()
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + tensors)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    "broken",
    [
        {"shape": [33]},
        {"shape": [-32]},
        {"shape": [32.0]},
        {"shape": [True]},
        {"shape": "32"},
        {"shape": [1] * 9},
        {"dtype": "F16"},
        {"dtype": "EVIL"},
        {"dtype": None},
        {"dtype": ["F32"]},
        {"data_offsets": [0, 128]},
        {"data_offsets": [-128, 0]},
        {"data_offsets": [128, 0]},
        {"data_offsets": [1 << 60, (1 << 60) + 128]},
        {"data_offsets": [0]},
        {"data_offsets": None},
    ],
)
def test_a_tensor_that_is_not_what_its_header_says_is_refused(model: Path, broken: dict[str, Any]) -> None:
    header, tensors = header_of(model / "model.safetensors")
    write_weights(model / "model.safetensors", header, tensors)
    read_model(str(model))
    header[NORM] |= broken
    write_weights(model / "model.safetensors", header, tensors)
    with pytest.raises(BadInput, match=r"model.safetensors is not a complete safetensors file"):
        read_model(str(model))


@pytest.mark.parametrize("offset", [-128, -4, 4])
def test_tensors_that_overlap_are_refused(model: Path, offset: int) -> None:
    header, tensors = header_of(model / "model.safetensors")
    inner = header["model.layers.0.post_attention_layernorm.weight"]
    assert 128 < inner["data_offsets"][0] < len(tensors) - 256
    inner["data_offsets"] = [place + offset for place in inner["data_offsets"]]
    write_weights(model / "model.safetensors", header, tensors)
    with pytest.raises(BadInput, match="its tensors overlap"):
        read_model(str(model))


@pytest.mark.parametrize("length", [0, 7, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_of_another_length_is_refused(model: Path, length: int) -> None:
    header, tensors = header_of(model / "model.safetensors")
    write_weights(model / "model.safetensors", header, tensors, length)
    with pytest.raises(BadInput, match=r"model.safetensors is not a complete safetensors file"):
        read_model(str(model))


@pytest.mark.parametrize("header", [[], 7, None, {"a": 7}, {"a": {}}, {"a": []}])
def test_a_header_of_another_form_is_refused(model: Path, header: Any) -> None:
    write_weights(model / "model.safetensors", header, b"")
    with pytest.raises(BadInput, match=r"model.safetensors is not a complete safetensors file"):
        read_model(str(model))


@pytest.mark.parametrize("files", [None, [], {}, {"a": 7}, {"a": "../../x.safetensors"}, {"a": "/etc/x.safetensors"}])
def test_an_index_that_names_no_files_of_the_model_is_refused(model: Path, files: Any) -> None:
    change(model / "model.safetensors.index.json", weight_map=files)
    with pytest.raises(BadInput, match=r"weight_map in model.safetensors.index.json|weight files are missing"):
        read_model(str(model))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"intermediate_size": 100}, r"model\.layers\.0\.mlp\.down_proj\.weight has the shape \[32, 64\]"),
        ({"num_hidden_layers": 3}, r"9 of its weights are missing, the first is model\.layers\.2\."),
        ({"hidden_act": "evil"}, "it cannot be loaded: KeyError"),
        ({"pad_token_id": 10**6}, "it cannot be loaded: "),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused_before_gpus_are_held(
    model: Path, values: dict[str, Any], problem: str
) -> None:
    check_loads(model, CHAT, "spec.model")
    change(model / "config.json", **values)
    with pytest.raises(BadInput, match=rf"spec\.teacher: {problem}") as refused:
        check_loads(model, CHAT, "spec.teacher")
    assert refused.value.hint


def test_a_new_head_may_be_missing(model: Path) -> None:
    check_loads(model, CLASSIFIER, "spec.model")
    header, tensors = header_of(model / "model.safetensors")
    header["score.weight"] = {"dtype": "F32", "shape": [5, 32], "data_offsets": [len(tensors), len(tensors) + 640]}
    write_weights(model / "model.safetensors", header, tensors + bytes(640))
    check_loads(model, CLASSIFIER, "spec.model")


def test_prepare_tries_to_load_the_model(model: Path, make_config: Any) -> None:
    change(model / "config.json", num_hidden_layers=3)
    with pytest.raises(BadInput, match="of its weights are missing"):
        prepare.prepare(RunConfig.from_dict(make_config(paths={"model": str(model)})))


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "head_dim"])
@pytest.mark.parametrize("size", [0, -1, 10**9, 10**30, 1e300])
def test_sizes_that_no_model_has_are_refused_before_anything_of_that_size_is_built(
    model: Path, key: str, size: float
) -> None:
    change(model / "config.json", **{key: size})
    with pytest.raises(BadInput, match=rf"spec\.model: `{key}` in config.json is "):
        read_model(str(model))


def test_more_layers_than_weights_are_refused_before_they_are_built(model: Path) -> None:
    change(model / "config.json", num_hidden_layers=2000)
    with pytest.raises(BadInput, match="has 2000 layers, but there are only 20 weights"):
        read_model(str(model))


@pytest.mark.parametrize("name", [0.5, "LlamaForCausalLM", [7]])
def test_names_of_classes_that_are_none_are_refused(model: Path, name: Any) -> None:
    change(model / "config.json", architectures=name)
    with pytest.raises(BadInput, match=r"spec\.model: "):
        read_model(str(model))


def test_a_tokenizer_that_loads_but_does_not_encode_is_refused(model: Path) -> None:
    change(model / "tokenizer_config.json", model_max_length="x")
    with pytest.raises(BadInput, match="its tokenizer cannot be loaded"):
        load_tokenizer(model)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "chat_template.jinja", "generation_config.json"])
def test_a_directory_in_place_of_a_file_is_refused(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).mkdir()
    with pytest.raises(BadInput, match=f"{name} is a directory"):
        check_model(model, "spec.model")


@pytest.mark.parametrize("part", [7, "x", [1], True])
def test_a_part_of_a_config_that_is_none_is_refused(model: Path, part: Any) -> None:
    change(model / "config.json", text_config=part)
    with pytest.raises(BadInput, match=r"spec\.model: "):
        read_model(str(model))


def test_a_link_to_nothing_is_a_missing_file(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("missing")
    with pytest.raises(BadInput, match=r"there is no model\.safetensors"):
        read_model(str(model))


def calls(name: str) -> dict[str, list[ast.Call]]:
    """The calls of a method of this name in the trainer's code, by module."""
    root, everywhere = Path(hone_trainer.__file__).parent, {}
    for path in root.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        nodes = [node for node in tree if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == name]
        if nodes:
            everywhere[path.relative_to(root).as_posix()] = nodes
    return everywhere


def test_only_one_module_lets_libraries_load_and_always_without_code() -> None:
    loads, builds = calls("from_pretrained"), calls("from_config")
    assert set(loads) == set(builds) == {"models/loading.py"}
    for call in [*loads["models/loading.py"], *builds["models/loading.py"]]:
        settings = {each.arg: getattr(each.value, "value", None) for each in call.keywords}
        if getattr(call.func.value, "id", "") == "PeftModel":  # which has no such argument
            continue
        assert settings.get("trust_remote_code") is False, ast.unparse(call)
        assert settings.get("local_files_only") is True or call.func.attr == "from_config", ast.unparse(call)


def test_no_trainer_of_trl_is_told_to_trust() -> None:
    source = "\n".join(path.read_text() for path in Path(hone_trainer.__file__).parent.rglob("*.py"))
    assert "trust_remote_code=True" not in source.replace(" ", "")
