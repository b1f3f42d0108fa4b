"""Checks of `spec.reward` before anything is trained. The user's code is read here, and never run."""

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.rewards import REWARDS, RewardFunction, Rewards
from hone_trainer.data.conversation import require_template
from hone_trainer.data.labels import padding_id
from hone_trainer.models.architectures import SCORER
from hone_trainer.models.loading import load_config
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.limits import TooLong, limited
from hone_trainer.protocol.volumes import read_file
from hone_trainer.rewards.functions import LIMIT_SECONDS

if TYPE_CHECKING:
    from hone_trainer.models.facts import ModelFacts

MODEL = "spec.reward.model"
"""The field of the spec that names a reward model."""

MAX_CODE_BYTES = 1 << 20
"""Most bytes of a user's function; a ConfigMap holds no more."""

ARGUMENTS = ("prompts", "completions", "reference")
"""The keyword arguments that a user's function is called with."""
_SHAPE = "Write `def {}(prompts, completions, reference=None, **kwargs) -> list[float]:`"


def field_of(index: int) -> str:
    """The field of the spec that names a function."""
    return f"spec.reward.functions[{index}]"


def compared_by(rewards: Rewards | None) -> str | None:
    """The function that needs a reference in every row; None where none does."""
    functions = rewards.functions if rewards else []
    return next((one.name.value for one in functions if one.name and REWARDS[one.name].compares), None)


def check_rewards(rewards: Rewards | None) -> dict[Path, bytes]:
    """Check that every function can be called.

    Returns:
        The user's code as it was checked, by the paths where the steps after prepare look for it.

    Raises:
        BadInput: naming the function and what is wrong with it.
    """
    code = {}
    for index, function in enumerate(rewards.functions if rewards else []):
        if function.name is None:
            code[Path(function.file or "")] = check_code(field_of(index), function)
        elif REWARDS[function.name].matches:
            _check_pattern(f"{field_of(index)}.pattern", function.pattern or "")
    return code


def _check_pattern(field: str, pattern: str) -> None:
    try:
        with limited(LIMIT_SECONDS):
            re.compile(pattern)
    except TooLong as error:
        raise BadInput(
            field, f"it took longer than {LIMIT_SECONDS:g} s to compile", "Use a simpler pattern."
        ) from error
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(
            field, f"`{pattern}` is not a regular expression: {error}", "Use the syntax of Python's `re`."
        ) from error


def check_code(field: str, function: RewardFunction) -> bytes:
    """The code of a user's function, which is read and not run.

    Raises:
        BadInput: it is no Python, or has no function that can be called as it will be.
    """
    path = Path(function.mounted or "")
    if not path.is_file():
        raise BadInput(
            f"{field}.configMap", f"there is no {function.source}", "Create the ConfigMap, or use another key."
        )
    try:
        code = read_file(path.parent, path.name, f"{field}.configMap", MAX_CODE_BYTES)
        tree = ast.parse(code, filename=str(function.source))
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise BadInput(
            f"{field}.configMap",
            f"{function.source}{where} is not valid Python: {error.msg if isinstance(error, SyntaxError) else error}",
            "Fix the file in the ConfigMap.",
        ) from error
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    definition = defined.get(function.function)
    if definition is None:
        others = ", ".join(f"`{name}`" for name in list(defined)[:8]) or "none"
        raise BadInput(
            f"{field}.function",
            f"{function.source} defines no function `{function.function}`; it defines {others}",
            f"{_SHAPE.format(function.function)}, or use another function.",
        )
    _check_definition(f"{field}.function", definition)
    return code


def _check_definition(field: str, definition: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Refuse a function that cannot be called with `ARGUMENTS` alone, by keyword."""
    if isinstance(definition, ast.AsyncFunctionDef):
        raise BadInput(field, f"`{definition.name}` is asynchronous", "Define it with `def`, without `async`.")
    if definition.args.kwarg is None:
        raise BadInput(
            field,
            f"`{definition.name}` does not accept `**kwargs`",
            f"{_SHAPE.format(definition.name)}.",
        )
    if others := ", ".join(f"`{name}`" for name in _missing(definition.args)):
        raise BadInput(
            field,
            f"`{definition.name}` requires {others}, but is called with {', '.join(ARGUMENTS)}, by keyword",
            f"{_SHAPE.format(definition.name)}, with a default for each further parameter.",
        )


def _missing(arguments: ast.arguments) -> list[str]:
    """The parameters without a default that no keyword fills."""
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = positional[: len(positional) - len(arguments.defaults)]
    needed += [one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return [one.arg for one in needed if one.arg not in ARGUMENTS or one in arguments.posonlyargs]


def check_model(directory: str, *, chat: bool) -> int:
    """Check that a directory holds a reward model, by its config and tokenizer alone.

    Args:
        directory: of the model.
        chat: whether there are conversations to score.

    Returns:
        Its parameters.

    Raises:
        BadInput: it does not.
    """
    from hone_trainer.models.trial import check_loads

    path = Path(directory)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise BadInput(
            MODEL,
            "is an adapter, which cannot score answers without its base model",
            "Merge it: set spec.output.merge to Always in the job that trained it.",
        )
    facts = _read(directory, chat=chat)
    config = load_config(directory, MODEL)
    if config.num_labels != 1 or not any("score" in name or "classifier" in name for name in facts.shapes):
        kinds = " or ".join(config.architectures or ["a model of another kind"])
        raise BadInput(
            MODEL,
            f"is {kinds} with {config.num_labels} outputs, but a reward model has one",
            "Use a model trained with objective Reward, or any sequence classifier with one label.",
        )
    check_loads(directory, SCORER, MODEL)
    return facts.parameters


def _read(directory: str, *, chat: bool) -> "ModelFacts":
    """The facts about a reward model whose tokenizer can encode what it scores.

    Raises:
        BadInput: model or tokenizer cannot be used; the field is that of the reward model.
    """
    from hone_trainer.models.facts import load_tokenizer, read_model

    try:
        facts = read_model(directory, SCORER)
        tokenizer = load_tokenizer(directory)
        padding_id(tokenizer, chat=True)
        if chat:
            require_template(tokenizer)
    except BadInput as error:
        field = error.field.replace("spec.model", MODEL, 1) if error.field.startswith("spec.model") else MODEL
        raise BadInput(field, error.message, error.hint) from error
    return facts
