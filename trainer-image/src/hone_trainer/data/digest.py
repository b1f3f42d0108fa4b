"""Content digests: of the user's files, of the tokenizer, and of what they were prepared with."""

import hashlib
import json
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath

from hone_trainer.data.sources import Source
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.volumes import names_in, read_file

_LARGE, _SMALL = 256 << 20, 16 << 20
TOKENIZER_FILES = {
    "tokenizer.json": _LARGE,
    "tokenizer_config.json": _SMALL,
    "special_tokens_map.json": _SMALL,
    "added_tokens.json": _SMALL,
    "chat_template.jinja": 1 << 20,
    "chat_template.json": 1 << 20,
    "vocab.json": _LARGE,
    "merges.txt": _LARGE,
    "vocab.txt": _LARGE,
    "tokenizer.model": _LARGE,
}
"""The files of a tokenizer, and the most bytes of each; no known model comes near."""
TEMPLATES = "additional_chat_templates"
"""The directory of a model's further chat templates."""
MAX_TEMPLATES, TEMPLATE_BYTES = 64, 1 << 20
_LIBRARIES = ("transformers", "tokenizers", "trl", "datasets")


def data_digest(sources: Iterable[Source]) -> str:
    """SHA-256 over the bytes of all files, each source's name and each file's kind and size; hex. Names of files do not
    count."""
    digest = hashlib.sha256()
    for source in sources:
        # Of several sources, each has settings of its own.
        name = f"{source.name} {source.place}" if source.part else source.name
        for file in source.files:
            with file.open_raw() as stream:
                digest.update(f"{name} {file.kind} {os.fstat(stream.fileno()).st_size}\n".encode())
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def tokenizer_digest(model: Path, field: str = "spec.model") -> str:
    """SHA-256 over the tokenizer's files and the chat templates of a model's directory; hex."""
    digest = hashlib.sha256()
    for name, limit in tokenizer_files(model, field).items():
        try:
            content = read_file(model, name, field, limit)
        except FileNotFoundError:
            continue
        digest.update(f"{PurePath(name).name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def tokenizer_files(model: Path, field: str) -> dict[str, int]:
    """What a model's tokenizer may be made of: names relative to its directory, and the most bytes of each.

    Raises:
        BadInput: a link leads out of the volume, or there are too many chat templates.
    """
    templates = [name for name in names_in(model, TEMPLATES, field) if name.endswith(".jinja")]
    if len(templates) > MAX_TEMPLATES:
        raise BadInput(field, f"has {len(templates)} chat templates", f"Keep at most {MAX_TEMPLATES} in {TEMPLATES}.")
    return {**TOKENIZER_FILES, **{f"{TEMPLATES}/{name}": TEMPLATE_BYTES for name in templates}}


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
