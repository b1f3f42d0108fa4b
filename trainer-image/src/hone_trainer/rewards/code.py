"""The user's own reward functions: loaded from prepare's copy, called within a time limit, their figures checked.

Only train and finish load them, whose pods have no token; what is wrong with them is reported as BadInput.
"""

import logging
import math
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hone.contract.exits import FailureClass
from hone.contract.rewards import RewardFunction
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.limits import TooLong, limited
from hone_trainer.protocol.verdicts import classify
from hone_trainer.rewards.functions import Rewarding, text_of

log = logging.getLogger("hone_trainer.rewards")

LIMIT_SECONDS = 60.0
"""For one call. A call that hangs in a library, where no signal reaches it, is ended with its step by the watchdog."""
_FIX = "Fix the function. The pod's log has the error's words."
_LEAST_SECONDS = 0.01
"""A call is not started with less time left: the timer could fire before the call has begun."""

_FAILURES = (Exception, TooLong, SystemExit)
"""What ends the user's code as its own fault, unless `_of_the_run` applies."""


def _of_the_run(error: BaseException) -> bool:
    """Whether the error is the run's and not the function's: a stop of the pod, or a GPU that is out of memory.

    The model takes up most of a GPU's memory. Of the host's memory, most is the function's own, so that counts as its
    fault.
    """
    return classify(error, on_gpu=True) in (FailureClass.PREEMPTED, FailureClass.OUT_OF_MEMORY)


def load_function(field: str, function: RewardFunction) -> Rewarding:
    """The function of a file, as a reward whose figures are checked at each call.

    Args:
        field: the field of the spec that names it.
        function: with `file`, `source` and `function`.

    Raises:
        BadInput: the file cannot be run, or has no such function.
    """
    source = f"{function.source}: `{function.function}`"
    callee = getattr(_run_file(field, function), function.function, None)
    if not callable(callee):
        raise BadInput(
            f"{field}.function", f"{source} is not a function after the file is loaded", "Define it as a function."
        )

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], reference: Sequence[Any] | None = None, **_: Any
    ) -> list[float | None]:
        # TRL passes more arguments, which finish does not have: a function that used them would fail there.
        arguments = {"prompts": prompts, "completions": completions, "reference": reference}
        try:
            figures = _figures(callee, arguments, LIMIT_SECONDS)
        except _FAILURES as error:
            if _of_the_run(error):
                log.error("The run ended inside a reward function", extra={"field": field, "function": source})
                raise
            row = "" if isinstance(error, TooLong) else _failing(callee, arguments)
            # Its own words may repeat a row, which the job's status must not show.
            log.error("A reward function failed", extra={"field": field, "function": source}, exc_info=error)
            raise BadInput(f"{field}.configMap", f"{source} failed: {_place(error, function)}{row}", _FIX) from error
        return _checked(figures, f"{field}.configMap", source, prompts, completions)

    return reward


def _run_file(field: str, function: RewardFunction) -> ModuleType:
    """The module that the function's file defines, once it has run.

    Raises:
        BadInput: it cannot be run.
    """
    try:
        module = ModuleType(f"hone_reward_{abs(hash(function.label))}")
        module.__file__ = str(function.file)
        # As an import would: dataclasses, for example, look their module up there.
        sys.modules[module.__name__] = module
        # No loader of importlib: it would write bytecode to the workspace.
        code = compile(Path(module.__file__).read_bytes(), module.__file__, "exec", dont_inherit=True)
        with limited(LIMIT_SECONDS):
            exec(code, module.__dict__)
    except _FAILURES as error:
        if _of_the_run(error):
            raise
        raise BadInput(
            f"{field}.configMap",
            f"{function.source} cannot be loaded: {_words(error, function)}",
            "Fix the file in the ConfigMap.",
        ) from error
    return module


def _figures(callee: Any, arguments: dict[str, Sequence[Any] | None], seconds: float) -> Any:
    """What the user's function gives back; a generator runs here, too, within the limit."""
    with limited(seconds):
        figures = callee(**arguments)
        return list(figures) if isinstance(figures, Iterator) else figures


def _checked(
    figures: Any, field: str, source: str, prompts: Sequence[Any], completions: Sequence[Any]
) -> list[float | None]:
    """The figures as numbers.

    Raises:
        BadInput: they are not one finite number, or None, for each answer.
    """
    try:
        values = list(figures)
    except TypeError as error:
        raise BadInput(
            field, f"{source} returned {_kind(figures)}, not a list of numbers", "Return one for each of `completions`."
        ) from error
    if len(values) != len(completions):
        raise BadInput(
            field,
            f"{source} returned {len(values)} numbers for {len(completions)} answers",
            "Return one for each of `completions`, in their order; None where it does not apply.",
        )
    checked: list[float | None] = []
    for value, prompt, completion in zip(values, prompts, completions, strict=True):
        if value is None:
            checked.append(None)
            continue
        try:
            number = math.nan if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            # A RuntimeError is torch's, of a tensor with several numbers.
            number = math.nan
        if not math.isfinite(number):
            shown = value if isinstance(value, float) else _kind(value)
            raise BadInput(
                field,
                f"{source} returned {shown}, not a finite number{_row(prompt, completion)}",
                "Return a number for each answer, or None where it does not apply.",
            )
        checked.append(number)
    return checked


def _failing(callee: Any, arguments: dict[str, Sequence[Any] | None]) -> str:
    """The first answer that fails when it is alone, in words; empty where none does, or none within the limit."""
    until = time.monotonic() + LIMIT_SECONDS
    prompts, completions = arguments["prompts"] or (), arguments["completions"] or ()
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if (left := until - time.monotonic()) < _LEAST_SECONDS:
            break
        try:
            _figures(callee, {name: values and [values[index]] for name, values in arguments.items()}, left)
        except TooLong:
            break
        except _FAILURES as error:
            if _of_the_run(error):
                raise
            return _row(prompt, completion)
    return ""


def _row(prompt: Any, completion: Any) -> str:
    """Which answer it was, by lengths: a row of the data is not shown in errors."""
    return f"; for a prompt of {len(text_of(prompt))} characters and an answer of {len(text_of(completion))}"


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _words(error: BaseException, function: RewardFunction) -> str:
    """What an exception says, and in which line of the user's file it arose."""
    return _place(error, function, f": {clip(str(error), 300)}")


def _place(error: BaseException, function: RewardFunction, words: str = "") -> str:
    """The kind of an exception, and in which line of the user's file it arose."""
    if isinstance(error, TooLong):
        return f"it took longer than {LIMIT_SECONDS:g} s"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == function.file]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{words}{where}"
