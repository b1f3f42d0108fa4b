"""The project's words: standard terms in names, plain English in prose; operator/ARCHITECTURE.md has the glossary."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

NAMES = {
    "anew": "a name of what is made again",
    "asked": "requested, or the thing's own name",
    "found": "the thing's own name",
    "given": "arguments, or the thing's own name",
    "kept": "cached, retained, or the thing's own name",
    "made": "built, created, or the thing's own name",
    "said": "message, text",
    "settle": "record_outcome",
    "told": "reported, message",
    "wanted": "configured, expected, or the thing's own name",
}
"""Participles that name no thing: variables, parameters, functions and classes must not be called so."""

PROSE = {
    r"mend(s|ed|ing)?": "fix, repair, recover",
    r"anew": "again",
    r"besides?": "next to, alongside, in addition to",
    # Not as a key of JSON or a part of a file's name, which older runs have written.
    r"(?<![\"-])rungs?(?!\")": "level (of the memory fallback)",
    r"lookout": "supervisor",
    r"likelier": "more likely",
    r"a twentieth": "the number",
    r"told of": "recorded, reported",
    r"nobody looks": "who or what does not check",
    r"go(es)? on": "continue",
}
"""Words that a reader of Kubernetes' and Hugging Face's documentation does not meet."""

# The cached base model is named by the bytes of these files: a name changed here would build it again.
BASE_MODEL = ("dev/basemodel/", "dev/data/")
# Texts of data sets, and this file, which lists the words.
NOT_PROSE = (*BASE_MODEL, "examples/data/", "tests/unit/repo/test_words.py")
SUFFIXES = (".py", ".md", ".yaml", ".tpl", ".txt", ".json", ".toml", "Makefile", "Dockerfile")
_BANNED = re.compile(rf"\b(?:{'|'.join(PROSE)})\b", re.IGNORECASE)


def tracked(*suffixes: str) -> list[str]:
    """Files that Git tracks, or would track, by suffix."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each variable, parameter, function and class that a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def test_no_name_is_a_bare_participle() -> None:
    banned = [
        f"{path}:{line} {name}: use {NAMES[word]}"
        for path in tracked(".py")
        if not path.startswith(BASE_MODEL)
        for line, name in defined_names(ast.parse((ROOT / path).read_text()))
        if (word := name.strip("_").lower()) in NAMES
    ]
    assert not banned, "\n".join(banned)


def test_prose_uses_the_standard_words() -> None:
    banned = [
        f"{path}:{number} {match[0]!r}: {line.strip()[:100]}"
        for path in tracked(*SUFFIXES)
        if not path.startswith(NOT_PROSE)
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1)
        for match in _BANNED.finditer(line)
    ]
    assert not banned, "\n".join(banned)


@pytest.mark.parametrize("text", ["Mend it.", "made anew", "the rung", "it goes on from there", "told of it"])
def test_the_pattern_finds_the_words(text: str) -> None:
    assert _BANNED.search(text)


@pytest.mark.parametrize("text", ["recommended", "memory_rung", '{"rung": 2}', "memory-rung.json", "amendment"])
def test_the_pattern_leaves_other_words_alone(text: str) -> None:
    assert not _BANNED.search(text)
