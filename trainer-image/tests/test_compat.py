"""The table of what the trainer takes from libraries without a promise: it holds, and nothing is missing from it."""

import ast
import pkgutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import transformers

import hone_trainer
from hone.contract.objectives import Objective
from hone_trainer.compat import HOOKS, Hook, Incompatible, check
from hone_trainer.objectives import components

ROOT = Path(hone_trainer.__file__).parent
LIBRARIES = {"accelerate", "bitsandbytes", "datasets", "deepspeed", "peft", "torch", "transformers", "trl"}
DOCUMENTED = {
    "bitsandbytes.nn",
    "torch.distributed",
    "torch.distributed.elastic.multiprocessing.errors",
    "torch.utils.data",
    "transformers.modeling_outputs",
    "transformers.utils",
}
"""Modules of the libraries, below their first, that their documentation names as the place to import from."""
OF_PYTHON = {
    name for kind in (type, object, types.ModuleType, types.FunctionType, BaseException, list) for name in dir(kind)
} | {"__file__"}
BY_NAME = {name.rpartition(".")[2] for hook in HOOKS for name in (hook.name, hook.owner)}


def test_every_hook_is_there() -> None:
    check()


def broken(hook: Hook, **changes: object) -> str:
    """What the check says of a hook that is expected to be different."""
    with pytest.raises(Incompatible) as error:
        check([replace(hook, **changes)])
    return str(error.value)


def hook_of(owner: str, name: str) -> Hook:
    """The row of the table."""
    return next(hook for hook in HOOKS if (hook.owner, hook.name) == (owner, name))


def test_what_is_gone_or_has_changed_is_named_with_the_librarys_version() -> None:
    saves, logits = (
        hook_of("transformers.Trainer", "_save_checkpoint"),
        hook_of("trl.trainer.utils", "_CHUNKED_LOGPROB_CHUNK_SIZE"),
    )
    library = f"of transformers {transformers.__version__}"
    assert broken(saves, name="_save_all") == f"transformers.Trainer._save_all {library} is gone"
    assert (
        broken(saves, owner="transformers.Coach")
        == f"transformers.Coach._save_checkpoint {library} is gone with its owner"
    )
    assert broken(saves, parameters=("model",)).endswith(f"{library} takes (model, trial), not (model)")
    assert "is 32768, not 1" in broken(logits, value=1)
    assert "is gone" in broken(hook_of("datasets.Dataset", "_indices"), name="_chosen")
    assert "takes (" in broken(hook_of("trl.models.utils", "prepare_deepspeed"), parameters=("engine",))


def test_every_row_is_in_use_where_it_says() -> None:
    for hook in HOOKS:
        for name in hook.used_in:
            text = (ROOT / name).read_text()
            assert hook.name in text or str(hook.value) in text, f"{name} does not use {hook}"


class Uses(ast.NodeVisitor):
    """Private names of others that a module uses: (line, name)."""

    def __init__(self, tree: ast.Module) -> None:
        self.uses: list[tuple[int, str]] = []
        self.own = set(_defined(tree))
        self.visit(tree)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module.partition(".")[0] in LIBRARIES:
            hidden = "." in module and module not in DOCUMENTED
            self.uses += [(node.lineno, one.name) for one in node.names if hidden or one.name.startswith("_")]

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            if one.name.partition(".")[0] in LIBRARIES and "." in one.name and one.name not in DOCUMENTED:
                self.uses.append((node.lineno, one.name))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        of_python = isinstance(node.value, ast.Name) and node.value.id in sys.stdlib_module_names
        if node.attr.startswith("_") and node.attr not in OF_PYTHON | self.own and not of_python:
            self.uses.append((node.lineno, node.attr))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in {"getattr", "setattr", "hasattr"}:
            name = node.args[1]
            if isinstance(name, ast.Constant) and str(name.value).startswith("_"):
                self.uses.append((node.lineno, str(name.value)))
        self.generic_visit(node)


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that a module itself defines: of functions, classes, variables, and attributes that it assigns to self.

    A name that is only annotated is none of them: so classes declare what they take from a library's class.
    """
    declared = {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and node.value is None}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) if id(node) not in declared:
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def unlisted(text: str) -> list[str]:
    """Private names of libraries that a module uses without a row."""
    return [f"line {line}: {name}" for line, name in Uses(ast.parse(text)).uses if name not in BY_NAME]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_a_library_is_used_without_a_row(path: Path) -> None:
    assert unlisted(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "from trl.models.utils import unwrap_model_for_generation",
        "from transformers import _LazyModule",
        "import deepspeed.runtime.engine",
        "trainer._inner_training_loop()",
        "trainer._hidden = 1",
        "class Mixin:\n    _hidden: int\n    def use(self):\n        return self._hidden",
        "deepspeed.ops.__installed_ops__",
        'getattr(model, "_tied_weights_keys")',
    ],
)
def test_a_use_without_a_row_is_found(text: str) -> None:
    assert unlisted(text)


def overrides(trainer: type) -> Iterator[str]:
    """What a trainer of ours takes the place of in a library's class."""
    line = trainer.__mro__
    ours = [one for one in line if one.__module__.startswith("hone_trainer.")]
    theirs = [one for one in line if one.__module__.partition(".")[0] in LIBRARIES]
    for one in ours:
        yield from (
            name
            for name in vars(one)
            if not (name.startswith("__") and name.endswith("__")) and any(hasattr(base, name) for base in theirs)
        )


@pytest.mark.parametrize("objective", Objective)
def test_every_override_of_a_trainer_has_a_row(objective: Objective) -> None:
    trainer = components(objective).trainer_class()
    hooks = set(overrides(trainer))
    assert "_save_checkpoint" in hooks
    rows = {(pkgutil.resolve_name(hook.owner), hook.name) for hook in HOOKS if hook.override}
    assert {name for name in hooks if not any((base, name) in rows for base in trainer.__mro__)} == set()
