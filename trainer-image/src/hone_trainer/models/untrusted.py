"""What the files of a model may not ask for: code to run, other files, pickles. Refused before a library reads them.

The libraries refuse most of it themselves where `trust_remote_code` is False. This does not rely on every release of
them, also of the server that reads the artifact, and says which key of which file is meant.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone_trainer.data.digest import TOKENIZER_FILES, tokenizer_files
from hone_trainer.models.architectures import HEADS
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.volumes import check_tree, locate, names_in, read_json, shown

CONFIG, GENERATION, TOKENIZER, ADAPTER = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "adapter_config.json",
)
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Of models that also read images: nothing here loads them, but servers do."""
CONFIG_BYTES = 4 << 20
"""Most bytes of a config; the largest known ones have some 100 KB."""
INDEX, INDEX_BYTES = "model.safetensors.index.json", 64 << 20

_UNSET: tuple[Any, ...] = (None, False, "", [], {})
_RUNS_CODE = "would run code, and code from a model's directory is never run"
_REMOVE = "Remove it; use an architecture that transformers has built in."


class Refused(NamedTuple):
    """A key that a file may not have.

    Attributes:
        files: the files in which it has a meaning.
        allowed: the values with which it is accepted.
        problem: what it would do.
        remedy: what to do about it.
    """

    files: tuple[str, ...]
    allowed: tuple[Any, ...]
    problem: str
    remedy: str


CODE_KEY = "auto_map"
"""The key that names classes in files of the directory. Accepted only at the top of a config whose classes are
transformers' own."""
_CODE = Refused((CONFIG, GENERATION, TOKENIZER, *PROCESSORS), _UNSET, _RUNS_CODE, _REMOVE)
_KERNEL = Refused(
    (CONFIG,),
    (*_UNSET, "eager", "sdpa"),
    "may only be eager or sdpa: other values load code",
    "Remove it; the run chooses an implementation.",
)
_QUANTIZED = Refused(
    (CONFIG,),
    _UNSET,
    "says that the weights are quantized already",
    "Use the unquantized model; method QLoRA quantizes it for training.",
)
_PATCHES = Refused((CONFIG,), _UNSET, "would replace parts of the model's code", "Remove it.")
_MODE = Refused(
    (CONFIG, GENERATION),
    (*_UNSET, 0, 1),
    "asks for a way of generating whose code is not part of transformers",
    "Remove it.",
)
_OTHER_FILE = Refused(
    (CONFIG, TOKENIZER),
    _UNSET,
    "names another file to load; files are found by their usual names",
    "Remove it, and copy the file to the model's directory.",
)
REFUSED: Mapping[str, Refused] = {
    **dict.fromkeys((CODE_KEY, "custom_generate", "custom_pipelines", "trust_remote_code"), _CODE),
    **dict.fromkeys(("attn_implementation", "_attn_implementation", "_attn_implementation_internal"), _KERNEL),
    **dict.fromkeys(("experts_implementation", "_experts_implementation", "_experts_implementation_internal"), _KERNEL),
    **dict.fromkeys(("quantization_config", "compression_config"), _QUANTIZED),
    **dict.fromkeys(("fusion_config", "kernel_config", "use_kernels", "distributed_config"), _PATCHES),
    **dict.fromkeys(("constraints", "force_words_ids", "dola_layers", "penalty_alpha", "num_beam_groups"), _MODE),
    # transformers reads these instead of config.json and tokenizer.json, unchecked and outside of the digests.
    **dict.fromkeys(("configuration_files", "fast_tokenizer_files"), _OTHER_FILE),
    **dict.fromkeys(("transformers_weights", "gguf_file", "init_inputs", "tokenizer_object"), _OTHER_FILE),
    **dict.fromkeys(("vocab_file", "merges_file", "tokenizer_file", "spm_file", "source_spm"), _OTHER_FILE),
    **dict.fromkeys(("target_spm", "sp_model_file", "emoji_file", "normalizer_file", "codes_file"), _OTHER_FILE),
}
"""What is refused wherever it stands in a file, by key. There is no field that allows it."""

MAY_BE_ZERO = ("num_experts", "num_local_experts", "n_routed_experts")
"""Sizes in config.json that are 0 in dense models of a family that also has mixtures of experts, such as Granite 4."""
_LAYERS, _WIDTH, _HEADS, _VOCABULARY, _POSITIONS = 2_000, 1 << 20, 1 << 13, 1 << 24, 1 << 28
LARGEST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers"), _LAYERS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "d_ff"), _WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_heads"), _HEADS),
    **dict.fromkeys(("head_dim", "num_experts", "num_local_experts", "n_routed_experts", "num_labels"), 1 << 16),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), _POSITIONS),
    "vocab_size": _VOCABULARY,
}
"""The largest values of sizes in config.json: several times those of any known model. Libraries build lists and modules
of these sizes before they read a weight."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LORA: Mapping[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "target_modules": (list,),  # a text is a regular expression, and one can be written that never ends
    "task_type": (str,),
    "peft_type": (str,),
    "peft_version": (str,),
    "base_model_name_or_path": (str,),
    "revision": (str,),
    "inference_mode": (bool,),
    "use_rslora": (bool,),
    "fan_in_fan_out": (bool,),
    # PEFT writes these three for adapters on experts.
    "target_parameters": (list,),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
}
"""What an adapter's config may choose, by PEFT's names, and the types of it. All else is as LoRA's defaults."""
_MOST_RANK = 1 << 14
"""The largest rank or alpha in one of these."""
_ENDS_IN = re.compile(r"(\.\*\\\.)?\w+")
"""The keys of rank_pattern and alpha_pattern: the end of a name, as PEFT writes it; another regular expression might
never end."""
_SHARD = re.compile(r"shard-\d+-model-")
"""Names that make transformers load a directory as a distributed checkpoint, without its other checks."""
_SAVE_AGAIN = "Use an adapter as a FineTuneJob with method LoRA or QLoRA writes it."
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def check_model(directory: Path, field: str) -> None:
    """Refuse a model whose files lead out of its volume, or ask for code, other files or pickles.

    What is missing is not checked: nothing is read from it.

    Args:
        directory: of the model, or of an adapter.
        field: the spec's field that names it, for errors.

    Raises:
        BadInput: naming file and key, and what to do.
    """
    check_tree(directory, field)
    limits = {**dict.fromkeys((CONFIG, GENERATION, ADAPTER, *PROCESSORS), CONFIG_BYTES), INDEX: INDEX_BYTES}
    _check_sizes(directory, field, {**limits, **tokenizer_files(directory, field)})
    for name in (CONFIG, GENERATION, TOKENIZER, *PROCESSORS):
        content = _object(directory, name, field)
        for key, value in _entries(_without_unused_code(content, field) if name == CONFIG else content):
            _check_entry(field, name, key, value)
            if name == CONFIG:
                _check_size(field, key, value)
    for name in ("custom_generate", ".metadata"):
        if _exists(directory, name, field):
            raise BadInput(field, f"{name} {_RUNS_CODE}", "Remove it.")
    adapter = _object(directory, ADAPTER, field)
    if adapter and _exists(directory, CONFIG, field):
        raise BadInput(
            field, f"has {ADAPTER} next to {CONFIG}: an adapter in it", "Merge the adapter, or remove its files."
        )
    if adapter:
        _check_adapter(adapter, field)
    _check_weights(directory, field)


def _without_unused_code(config: dict[str, Any], field: str) -> dict[str, Any]:
    """A config without an `auto_map` that no library follows: transformers has the model built in.

    Many models keep the key from the time before that. With `trust_remote_code=False` it has no meaning then, and
    `loading` drops it, so no artifact has it.
    """
    code, kind, classes = config.get(CODE_KEY), config.get("model_type"), config.get("architectures")
    if not isinstance(code, dict) or not code or not all(isinstance(name, str) for name in code.values()):
        return config
    built_in = _classes(kind) if isinstance(kind, str) else []
    if isinstance(classes, list) and classes and all(each in built_in for each in classes):
        return {key: value for key, value in config.items() if key != CODE_KEY}
    if built_in:
        raise BadInput(
            field,
            f"`architectures` in {CONFIG} is {_short(classes)}, which transformers does not have for {kind}, and code "
            f"from a model's directory, which `{CODE_KEY}` names, is never run",
            f"Use another model; if it is the same as transformers' own, set `architectures` to {_short(built_in)}.",
        )
    return config


def _classes(model_type: str) -> list[str]:
    """The classes with a head that transformers has for a type of model; none where it knows no such type."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    tables = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )
    return sorted({str(table[model_type]) for table in tables if model_type in table})


def _check_sizes(directory: Path, field: str, limits: Mapping[str, int]) -> None:
    for name, limit in limits.items():
        place = locate(directory, name, field)
        if place.is_dir():  # the copy into the artifact would find it only after the training
            raise BadInput(field, f"{name} is a directory", "Put the file there, or remove the directory.")
        if place.is_file() and (size := place.stat().st_size) > limit:
            raise BadInput(field, f"{name} has {size} bytes, more than {limit}", "Copy the original file again.")


def _object(directory: Path, name: str, field: str) -> dict[str, Any]:
    """The object in a file of the model; {} where there is no such file."""
    limit = TOKENIZER_FILES.get(name, CONFIG_BYTES)
    return read_json(directory, name, field, limit) if _exists(directory, name, field) else {}


def _exists(directory: Path, name: str, field: str) -> bool:
    return locate(directory, name, field).exists()


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of an object with its value, also of the objects in it, however deep."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield from current.items()
            pending += current.values()
        elif isinstance(current, list):
            pending += current


def _check_entry(field: str, name: str, key: str, value: Any) -> None:
    refused = REFUSED.get(key)
    if refused and name in refused.files and not any(value is each or value == each for each in refused.allowed):
        raise BadInput(field, f"`{key}` in {name} {refused.problem}: {_short(value)}", refused.remedy)


def _check_size(field: str, key: str, value: Any) -> None:
    most = LARGEST.get(key)
    if most is None or not isinstance(value, int | float) or isinstance(value, bool):
        return
    least = 0 if key in MAY_BE_ZERO else 1
    if not least <= value <= most:
        problem = f"`{key}` in {CONFIG} is {_short(value)}, not from {least} to {most}"
        raise BadInput(field, problem, "Copy the file again.")


def _check_adapter(settings: dict[str, Any], field: str) -> None:
    """Refuse an adapter that is not a plain LoRA, as Hone writes it."""
    from peft import LoraConfig

    defaults = vars(LoraConfig())
    if set(_names(settings.get("modules_to_save"))) <= set(HEADS):  # trained together with the adapter
        settings = {**settings, "modules_to_save": None}
    for key, value in {"peft_type": None, "r": None, "target_modules": None, **settings}.items():
        types = _LORA.get(key)
        if (
            types
            and not isinstance(value, types)
            and (value is not None or key in ("peft_type", "r", "target_modules"))
        ):
            raise BadInput(field, f"`{key}` in {ADAPTER} cannot be {_short(value)}", _SAVE_AGAIN)
        if types is None and key in defaults and value not in (*_UNSET, defaults[key]):
            raise BadInput(field, f"`{key}` in {ADAPTER} is not supported: {_short(value)}", _SAVE_AGAIN)
    targets = (*settings["target_modules"], *(settings.get("target_parameters") or ()))
    if settings["peft_type"] != "LORA" or not all(isinstance(name, str) for name in targets):
        raise BadInput(field, f"{ADAPTER} is not that of a LoRA", _SAVE_AGAIN)
    for key in ("rank_pattern", "alpha_pattern"):
        for name, value in (settings.get(key) or {}).items():
            if not _ENDS_IN.fullmatch(name) or type(value) is not int or not 1 <= value <= _MOST_RANK:
                raise BadInput(field, f"`{key}` in {ADAPTER} is not supported: {_short({name: value})}", _SAVE_AGAIN)


def _names(value: Any) -> list[str]:
    """A list of names as it is; one with an empty name for anything else."""
    names = value or []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else [""]


def _check_weights(directory: Path, field: str) -> None:
    """Refuse weights that exist only as pickles: loading these runs code that is in them."""
    names = names_in(directory, "", field)
    if shards := [name for name in names if _SHARD.match(name)]:
        raise BadInput(field, f"holds a part of a distributed checkpoint: {shown(shards[0])}", "Save the whole model.")
    if any(name.endswith(".safetensors") for name in names):
        return  # pickles next to them are never loaded
    if pickled := [name for name in names if name.endswith(_PICKLES)]:
        raise BadInput(
            field,
            f"its weights are pickles, which can run code: {shown(pickled[0])}",
            "Load the model where you trust it, and save it with save_pretrained, which writes *.safetensors.",
        )


def _short(value: object) -> str:
    return clip(shown(repr(value)), 60)
