"""Facts about a base model's directory, read from its config and the headers of its weights: no weight is loaded."""

import hashlib
import logging
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.contract.settings import Freeze
from hone_trainer.data.digest import tokenizer_digest, tokenizer_files
from hone_trainer.models import loading
from hone_trainer.models.architectures import CHAT, Architecture
from hone_trainer.models.freezing import is_frozen
from hone_trainer.models.language import reads_images
from hone_trainer.models.served_adapters import serves_adapters
from hone_trainer.models.untrusted import CONFIG_BYTES, check_model
from hone_trainer.models.weights import MAX_LISTED, Shapes, listing, weight_shapes
from hone_trainer.protocol import host, manifest
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.volumes import read_file, require_file, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.models.adapters import Adapted

log = logging.getLogger(__name__)

FIELD = "spec.model.claim.path"
_MAX_VISITED = 500
_WHOLE_FILE = 64 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10

_OUTPUT_HEADS = ("lm_head", "embed_out")
NOT_QUANTIZED = (*_OUTPUT_HEADS, "score", "classifier")
"""Output heads, as transformers names them: they are small, and the results depend on them directly."""
_CLASS_HEAD = "score.weight"


@dataclass(frozen=True)
class ModelFacts:
    """What the plan needs to know of a base model.

    Attributes:
        directory: where it lies.
        model_type: transformers' name of the architecture, such as llama.
        hidden_size, layers, intermediate_size, vocab_size: of the language model.
        max_length: longest context in tokens.
        shapes: the shape of each weight by name.
        tied: whether the output head is the input embeddings.
        heads: attention heads of a layer; None where its config names none.
        unused: names of the weights that no text passes, such as those of a vision tower.
        experts: the shapes of the tensors that hold all experts of a layer, by name.
        quantized: the shapes of the matrices that bitsandbytes can hold in 4 bits, by the names of their layers.
        adapted: what the method puts an adapter on.

    The last four are known once transformers has built the model (`hone_trainer.models.modules`); names and shapes are
    those of its files before that.
    """

    directory: Path
    model_type: str
    hidden_size: int
    layers: int
    intermediate_size: int
    vocab_size: int
    max_length: int
    shapes: Shapes
    tied: bool = False
    heads: int | None = None
    unused: frozenset[str] = frozenset()
    experts: Shapes = field(default_factory=dict)
    quantized: Shapes = field(default_factory=dict)
    adapted: "tuple[Adapted, ...]" = ()

    @property
    def parameters(self) -> int:
        """How many parameters the model has; tied weights count once."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def largest_tensor(self) -> int:
        """Parameters of the largest tensor."""
        return max((math.prod(shape) for shape in self.shapes.values()), default=0)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embeddings."""
        everything = self.shapes.items()
        return sum(math.prod(shape) for name, shape in everything if is_frozen(name, Freeze(embeddings=True)))

    @property
    def quantized_sizes(self) -> list[int]:
        """Parameters in each matrix that QLoRA holds in 4 bits."""
        return [math.prod(shape) for shape in self.quantized.values()]

    @property
    def expert_parameters(self) -> int:
        """Parameters of experts in tensors that hold all experts of a layer."""
        return sum(math.prod(shape) for shape in self.experts.values())

    @property
    def adapted_experts(self) -> int:
        """Values of these tensors that an adapter changes."""
        return sum(part.experts for part in self.adapted)

    @property
    def serves_adapter(self) -> bool:
        """Whether vLLM serves an adapter of this model as it is: it reads those on experts wrongly."""
        return serves_adapters(self.model_type) and not self.adapted_experts

    @property
    def cached_values(self) -> int:
        """Values that the cache of keys and values has for each token; where the layers' names do not tell, those of
        attention whose keys are as wide as what it reads."""
        ends = (".k_proj.weight", ".v_proj.weight")
        widths = [s[0] for name, s in self.shapes.items() if name.endswith(ends) and name not in self.unused]
        return sum(widths) or 2 * self.layers * self.hidden_size

    def with_head(self, classes: int) -> "ModelFacts":
        """This model with a head for classes, or for one score, in place of the one for tokens.

        Raises:
            BadInput: it has such a head already, with another number of outputs.
        """
        outputs, _ = self.shapes.get(_CLASS_HEAD, (classes, self.hidden_size))
        if outputs != classes:
            raise BadInput(
                "spec.model",
                f"its head has {outputs} outputs, but this job needs {classes}",
                "Use the base model that it was trained from.",
            )
        shapes = {n: s for n, s in self.shapes.items() if not any(part in _OUTPUT_HEADS for part in n.split("."))}
        shapes[_CLASS_HEAD] = (classes, self.hidden_size)
        return replace(self, shapes=shapes, vocab_size=classes, tied=False)

    def frozen_parameters(self, freeze: Freeze | None) -> int:
        """How many parameters are left as they are: what the spec freezes, and what no text passes.

        Raises:
            BadInput: what is to be frozen is not in this model.
        """
        if freeze is None:
            return sum(math.prod(shape) for name, shape in self.shapes.items() if name in self.unused)
        if freeze.layers >= self.layers:
            raise BadInput(
                "spec.method.freeze.layers",
                f"{freeze.layers} layers cannot be frozen: the model has {self.layers}",
                f"Use at most {self.layers - 1}, so that at least one layer is trained.",
            )
        if freeze.embeddings and not any(is_frozen(name, Freeze(embeddings=True)) for name in self.shapes):
            raise BadInput(
                "spec.method.freeze.embeddings",
                "the embeddings cannot be found: no weight of this model has one of their usual names",
                "Remove it.",
            )
        frozen = {name for name in self.shapes if is_frozen(name, freeze)} | self.unused
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name in frozen)

    def lora_parameters(self, rank: int) -> int:
        """How many parameters LoRA of a rank trains: (in + out) × rank for each adapted linear layer, for experts as
        often as there are of them, and the head for classes."""
        head = math.prod(self.shapes.get(_CLASS_HEAD, (0,)))
        return sum(rank * part.factor * (part.inputs + part.outputs) for part in self.adapted) + head

    def lora_values(self, rank: int) -> tuple[int, int]:
        """What the adapters of linear layers take in for one token, all together, and what their first matrices hand to
        their second ones."""
        layers = [part for part in self.adapted if not part.experts]
        return sum(part.inputs for part in layers), sum(rank * part.factor for part in layers)


def read_model(directory: str, architecture: Architecture = CHAT) -> ModelFacts:
    """The facts about the model in a directory.

    Raises:
        BadInput: there is no such directory, or it is not a causal language model that can be trained.
    """
    path = Path(directory)
    check_model(path, "spec.model")
    _require_directory(path)
    config = _load_config(path, architecture)
    shapes = weight_shapes(path)
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    if layers > len(shapes):
        # Whoever builds such a model takes minutes to see it.
        raise BadInput(
            "spec.model",
            f"its config.json has {layers} layers, but there are only {len(shapes)} weights",
            "Copy the whole model, with the config and the weights of the same version.",
        )
    return ModelFacts(
        directory=path,
        model_type=str(config.model_type),
        hidden_size=hidden,
        layers=layers,
        intermediate_size=int(getattr(config, "intermediate_size", None) or 4 * hidden),
        vocab_size=int(config.vocab_size),
        max_length=context_length(config),
        shapes=shapes,
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        heads=getattr(config, "num_attention_heads", None),
    )


def context_length(config: Any) -> int:
    """Longest context in tokens, by a language model's config; 2048 where it names none: Bloom, MPT, Mamba."""
    return int(getattr(config, "max_position_embeddings", None) or 2048)


def load_tokenizer(directory: str | Path) -> "PreTrainedTokenizerBase":
    """The model's tokenizer, from its directory alone.

    Raises:
        BadInput: there is none, or it cannot be loaded.
    """
    path = Path(directory)
    check_model(path, "spec.model")
    if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise BadInput(
            "spec.model",
            f"no tokenizer in {path}: it has {listing(path, directories=False)}",
            "Copy tokenizer.json and tokenizer_config.json of the model there.",
        )
    try:
        tokenizer = loading.load_tokenizer(path)
        tokenizer("a")  # some values fail only here
        return tokenizer
    except BadInput:
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise BadInput(
            "spec.model",
            f"its tokenizer cannot be loaded: {clip(str(error), 300)}",
            "Save the tokenizer again with save_pretrained, or copy the files of the original model.",
        ) from error


def _require_directory(path: Path) -> None:
    if not path.is_dir():
        parent = next(p for p in path.parents if p.is_dir())
        models = _models_below(parent)
        instead = f"with the models {', '.join(models)}" if models else f"which has {listing(parent, directories=True)}"
        raise BadInput(
            FIELD,
            f"there is no directory {path}; the nearest existing one is {parent}, {instead}",
            "Use one that exists.",
        )
    if not (path / "config.json").is_file():
        models = _models_below(path)
        hint = f"Use one of the models below it: {', '.join(models)}." if models else "Copy the model's files there."
        raise BadInput(FIELD, f"no config.json in {path}; it holds {listing(path, directories=False)}", hint)


def _models_below(root: Path) -> list[str]:
    """Directories up to three levels down that hold a config.json, relative to `root`; bounded."""
    models: list[str] = []
    level, visited = [root], 0
    for _ in range(3):
        below: list[Path] = []
        for parent in level:
            for child in _children(parent):
                visited += 1
                if visited > _MAX_VISITED or len(models) >= MAX_LISTED:
                    return models
                if (child / "config.json").is_file():
                    models.append(shown(child.relative_to(root)))
                else:
                    below.append(child)
        level = below
    return models


def _children(directory: Path) -> list[Path]:
    try:
        # Without links, which may lead out of the volume.
        inner = (p for p in directory.iterdir() if p.is_dir() and not p.is_symlink())
        return sorted(p for p in inner if not p.name.startswith("."))
    except PermissionError:
        return []


def _load_config(path: Path, architecture: Architecture) -> Any:
    """The language model's config, with transformers' own names for its sizes."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    try:
        config = loading.load_config(path)
    except BadInput:
        raise
    except Exception as error:  # unknown architectures, wrong types: each config class raises its own
        raise BadInput(
            "spec.model",
            f"its config.json cannot be used: {clip(str(error), 300)}",
            "Use an architecture that transformers has built in; code from a model's directory is not run.",
        ) from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not reads_images(config):
        if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise BadInput(
                "spec.model",
                f"{config.model_type} reads images, too, and Hone cannot train its language model alone",
                "Choose a text model, or one of Gemma 3, Mistral 3, Qwen2-VL, Qwen2.5-VL and Qwen3-VL.",
            )
        raise BadInput(
            "spec.model", f"{config.model_type} is not a causal language model", "Choose a model that generates text."
        )
    kinds = getattr(config, "architectures", None) or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise BadInput("spec.model", "`architectures` in config.json is no list of names", "Copy the file again.")
    if not architecture.has_head and kinds and all(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise BadInput(
            "spec.model",
            f"it is a {kinds[0]}, whose head outputs scores and not tokens",
            "Use the base model that it was trained from.",
        )
    if architecture.has_head and config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise BadInput(
            "spec.objective",
            f"needs {architecture.auto_class}, which transformers does not have for {config.model_type}",
            "Choose another base model, such as a Llama, Mistral or Qwen, or the objective SFT.",
        )
    text = config.get_text_config()
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        if type(getattr(text, name, None)) is not int:
            raise BadInput(
                "spec.model",
                f"`{name}` of its language model is not in config.json",
                "Copy the file of the model again.",
            )
    return text


def model_digest(path: Path) -> str:
    """SHA-256 over config, tokenizer and all bytes of the weights, which are read in parallel."""
    return model_digests(path)[0]


def model_digests(path: Path) -> tuple[str, dict[str, str]]:
    """The same, and the SHA-256 of each file that it is made of, in hex, by name."""
    weights = _weight_files(path)
    with ThreadPoolExecutor(host.cpus()) as pool:
        digests = [*pool.map(partial(_file_digest, path), weights)]
    others = {"config.json": CONFIG_BYTES, **tokenizer_files(path, "spec.model")}
    files = {name: _sha256_of(path, name, limit) for name, limit in others.items()}
    files |= {name: digest.decode() for name, digest in zip(weights, digests, strict=True)}
    return _digest(path, digests), {name: digest for name, digest in files.items() if digest is not None}


def _sha256_of(path: Path, name: str, limit: int) -> str | None:
    try:
        return hashlib.sha256(read_file(path, name, "spec.model", limit)).hexdigest()
    except FileNotFoundError:
        return None


def is_model(path: Path, digest: str) -> bool:
    """Whether a directory holds the model that had this digest.

    Releases before recorded digests over samples of large files. They are compared in the same way; the digest of all
    bytes never equals one of these.
    """
    return digest in (model_digest(path), _sampled_digest(path))


def _digest(path: Path, weights: Iterable[bytes]) -> str:
    digest = hashlib.sha256(read_file(path, "config.json", "spec.model", CONFIG_BYTES))
    digest.update(tokenizer_digest(path).encode())
    for name, content in zip(_weight_files(path), weights, strict=True):
        digest.update(f"{name} {(path / name).stat().st_size}\n".encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def _weight_files(path: Path) -> list[str]:
    return sorted(file.name for file in [*path.glob("*.safetensors"), *path.glob("*.bin")])


def _file_digest(path: Path, name: str) -> bytes:
    with require_file(path, name, "spec.model") as stream:
        return manifest.sha256(stream.fileno(), name).encode()


def _sampled_digest(path: Path) -> str:
    return _digest(path, (_samples(path, name) for name in _weight_files(path)))


def _samples(path: Path, name: str) -> bytes:
    with require_file(path, name, "spec.model") as stream:
        parts = []
        for offset, length in _sampled((path / name).stat().st_size):
            stream.seek(offset)
            parts.append(stream.read(length))
        return b"".join(parts)


def weights_bytes(path: Path) -> int:
    """Size of a model's weight files, and so of a whole model made from it, which keeps its data type."""
    files = [*path.glob("*.safetensors")] or [*path.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def _sampled(size: int) -> Iterable[tuple[int, int]]:
    if size <= _WHOLE_FILE:
        return [(0, size)]
    return [(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1), _SAMPLE_BYTES) for i in range(_SAMPLES)]
