"""Content digests: of the user's files, of the tokenizer, and of what they were prepared with."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hone_trainer.data.sources import Source

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
)
_LIBRARIES = ("transformers", "tokenizers", "trl", "datasets")


def data_digest(sources: Iterable[Source]) -> str:
    """SHA-256 over the bytes of all files, each source's name and each file's kind and size; hex. Names of files do not
    count."""
    digest = hashlib.sha256()
    for source in sources:
        for file in source.files:
            digest.update(f"{source.name} {file.kind} {file.path.stat().st_size}\n".encode())
            with file.path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def tokenizer_digest(model: Path) -> str:
    """SHA-256 over the tokenizer's files and the chat templates of a model's directory; hex."""
    digest = hashlib.sha256()
    templates = sorted((model / "additional_chat_templates").glob("*.jinja"))
    for file in [*(model / name for name in TOKENIZER_FILES), *templates]:
        if file.is_file():
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def prepared_digest(data: str, tokenizer: str, options: dict[str, object]) -> str:
    """The digest that names prepared data: of data, tokenizer, options, this package's code and its libraries; hex."""
    parts = {"data": data, "tokenizer": tokenizer, "options": options, "code": _code_digest()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library} {version(library)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{library} absent\n".encode())
    return digest.hexdigest()
