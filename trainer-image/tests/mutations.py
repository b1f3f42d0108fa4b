"""Mutated model directories, by seed: broken and hostile configs, tokenizers, templates, weights and links."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

SECRET = "hf_this-must-not-leave-the-pod"
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
FILES = (*JSON_FILES, "chat_template.jinja", "model.safetensors")
KEYS = (
    *("auto_map", "attn_implementation", "_attn_implementation", "quantization_config", "custom_generate"),
    *("transformers_weights", "vocab_file", "tokenizer_file", "fusion_config", "dtype", "torch_dtype", "model_type"),
    *("architectures", "rope_scaling", "rope_parameters", "layer_types", "text_config", "tokenizer_class"),
    *("chat_template", "added_tokens_decoder", "extra_special_tokens", "id2label", "num_labels", "pad_token_id"),
    *("tie_word_embeddings", "base_model_tp_plan", "per_layer_config", "use_cache", "pruned_heads", "head_dim"),
    *("num_experts", "sliding_window", "eos_token_id", "max_length", "penalty_alpha", "dola_layers", "init_inputs"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 10**6, 10**9, 10**12, 10**18, 10**30, -(10**9), 0.0, -0.5, 1e-300),
    *(1e300, float("nan"), float("inf"), "", "x", "evil/repo", "evil/repo@main:x", "../../x", "/proc/self/environ"),
    *("llama", "gpt2", "mamba", "LlamaForCausalLM", "Auto", "\ud800", "\x00", "é" * 50, "a" * 100_000, "{{ 1/0 }}"),
    *([], {}, [[]], [None], {"a": None}, [1, 2, 3], {"": "evil/repo"}, {"x": {"y": {"z": 1}}}, ["evil.py", None]),
    *({"rope_type": "yarn"}, {"factor": 0, "rope_type": "linear"}, {"quant_method": "evil"}, ["full_attention"] * 3),
)
TEMPLATES = (
    *("{{ 1/0 }}", "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "{{ messages }}"),
    *("{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__ }}", "{% raw %}", "{{ raise_exception('no') }}", ""),
    *(
        "{{ 'x' * 10000000000 }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    ),
    *("\x00\x1b[2J\u202e", "{% set x = messages %}{{ x[0]['content'] }}", "{{ messages[0].content.format(messages) }}"),
)


def mutate(model: Path, directory: Path, seed: int) -> list[str]:
    """Write a copy of the model to `directory` with one to three mutations; returns their names."""
    chance = Random(seed)
    shutil.copytree(model, directory)
    names = chance.choices(list(MUTATIONS), k=chance.choice((1, 1, 1, 2, 3)))
    for name in names:
        MUTATIONS[name](directory, chance)
    return names


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value; of long lists and tables some."""
    below = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(place for key, inner in below[:40] for place in _places(inner, (*path, key)))]


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _changed(copy[path[0]], path[1:], change)
    return copy


def _writable(file: Path) -> bool:
    """Whether there is a regular file, or nothing: what an earlier mutation has put there is left alone."""
    return not file.is_symlink() and (file.is_file() or not file.exists())


def _load(file: Path) -> Any:
    if not _writable(file):
        return {}
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}


def _dump(file: Path, value: Any) -> None:
    if _writable(file):
        file.write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))


def a_value(directory: Path, chance: Random) -> None:
    """Another value anywhere in a JSON file."""
    file = directory / chance.choice(JSON_FILES)
    content = _load(file)
    _dump(file, _changed(content, chance.choice(_places(content)), lambda _: chance.choice(VALUES)))


def a_key(directory: Path, chance: Random) -> None:
    """A key that has a meaning to some library."""
    file = directory / chance.choice(JSON_FILES[:3])
    content = _load(file)
    if isinstance(content, dict):
        _dump(file, {**content, chance.choice(KEYS): chance.choice(VALUES)})


def a_size(directory: Path, chance: Random) -> None:
    """Another number for one of the config's numbers."""
    content = _load(directory / "config.json")
    numbers = (
        [key for key, value in content.items() if type(value) in (int, float)] if isinstance(content, dict) else []
    )
    if numbers:
        key = chance.choice(numbers)
        factor = chance.choice((0, 0.5, 1.5, 2, 3, -1, 1000, 10**6, 10**12))
        _dump(directory / "config.json", {**content, key: type(content[key])(content[key] * factor)})


def without_a_key(directory: Path, chance: Random) -> None:
    file = directory / chance.choice(JSON_FILES)
    content = _load(file)
    if isinstance(content, dict) and content:
        content.pop(chance.choice(list(content)))
        _dump(file, content)


def nested(directory: Path, chance: Random) -> None:
    file = directory / chance.choice(JSON_FILES)
    depth = chance.choice((100, 5_000, 200_000))
    if _writable(file):
        file.write_text(chance.choice(("[", '{"a":')) * depth)


def a_template(directory: Path, chance: Random) -> None:
    file = directory / chance.choice(("chat_template.jinja", "additional_chat_templates/tool.jinja"))
    if not directory.joinpath("additional_chat_templates").is_symlink() and _writable(file):
        file.parent.mkdir(exist_ok=True)
        file.write_text(chance.choice(TEMPLATES), encoding="utf-8")


def a_header(directory: Path, chance: Random) -> None:
    """Another header of the weights: names, types, shapes or offsets."""
    file = directory / "model.safetensors"
    if file.is_symlink() or not file.is_file():
        return
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = _load_text(content[8 : 8 + length])
    if not isinstance(header, dict) or not header:
        return
    name = chance.choice(list(header))
    kind = chance.randrange(4)
    if kind == 0:
        header[name] = chance.choice(VALUES)
    elif kind == 1:
        header[chance.choice(("", "lm_head.weight", "score.weight", "model.layers.99.x", "__metadata__"))] = header.pop(
            name
        )
    elif isinstance(header[name], dict):
        part = chance.choice(("dtype", "shape", "data_offsets"))
        others = {"dtype": ["F64", "I8", "U64", "x"], "shape": [[], [0], [1, 32, 32], [-1], [2**62, 4]]}
        header[name] = {**header[name], part: chance.choice(others.get(part, [[0, 0], [0, 2**63], [64, 0], []]))}
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _load_text(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def bytes_changed(directory: Path, chance: Random) -> None:
    """Bytes flipped, removed or added anywhere in a file."""
    file = directory / chance.choice(FILES)
    if file.is_symlink() or not file.is_file():
        return
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 10))):
        if content:
            content[chance.randrange(min(len(content), 4096))] = chance.randrange(256)
    cut = chance.choice((None, None, 0, 7, 8, len(content) // 2))
    file.write_bytes(content[:cut] + chance.choice((b"", b"", b"\0" * 100)))


def no_file(directory: Path, chance: Random) -> None:
    (directory / chance.choice(FILES)).unlink(missing_ok=True)


def a_link(directory: Path, chance: Random) -> None:
    """A link instead of a file or in addition, out of the directory, within it, or to nothing."""
    names = (
        *FILES,
        "vocab.txt",
        "merges.txt",
        "additional_chat_templates",
        "x",
        "custom_generate",
        "adapter_config.json",
    )
    place = directory / chance.choice(names)
    if place.is_dir() and not place.is_symlink():
        return
    place.unlink(missing_ok=True)
    targets = ("../secret", "/proc/self/environ", "/dev/zero", "..", ".", "config.json", "missing", place.name)
    place.symlink_to(chance.choice(targets))


def a_special_file(directory: Path, chance: Random) -> None:
    place = directory / chance.choice((*FILES, "vocab.txt", "x"))
    if place.is_dir() and not place.is_symlink():
        return
    place.unlink(missing_ok=True)
    if chance.random() < 0.5:
        os.mkfifo(place)
    else:
        place.mkdir()


def an_extra_file(directory: Path, chance: Random) -> None:
    names = (
        "pytorch_model.bin",
        "adapter_config.json",
        "adapter_model.bin",
        ".metadata",
        "tokenizer.model",
        "vocab.json",
    )
    names += ("model.safetensors.index.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "x\n\u202e")
    place = directory / chance.choice(names)
    if _writable(place):
        place.write_bytes(
            chance.choice((b"", b"{}", b'{"weight_map": {"a": "../x"}}', b"\x80\x04N.", b"[1]", bytes(range(64))))
        )


MUTATIONS: dict[str, Callable[[Path, Random], None]] = {
    each.__name__: each
    for each in (
        *(a_value, a_value, a_key, a_size, without_a_key, nested, a_template, a_header),
        *(bytes_changed, no_file, a_link, a_special_file, an_extra_file),
    )
}
