"""BadInput and RowFault: what only the user can fix, and the verdict it becomes; how a full workspace is recognized."""

import errno
import re
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from hone.contract.exits import FailureClass, exit_code
from hone.contract.verdict import Verdict

MAX_MESSAGE = 1024
MAX_HINT = 512
_OWN_WORDS = (OSError, MemoryError, ImportError, RuntimeError, ArithmeticError)
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.\-]{0,39}", re.ASCII)

# safetensors has no errno, but the system's words.
_FULL_DISK = re.compile(r"No space left on device|Disk quota exceeded")


class WorkspaceFull(Exception):
    """The workspace has no space left for a checkpoint.

    Args:
        message: what could not be written, with the words of the error that said so.
        checkpoint: its directory, half-written.
    """

    def __init__(self, message: str, checkpoint: Path) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class BadInput(Exception):
    """The job's spec, data or base model is wrong; trying again cannot help.

    Args:
        field: path of the field to fix, as in the FineTuneJob's manifest: `spec.dataset.train`.
        message: what is wrong there, with the figures or names that show it.
        hint: what to do about it.
    """

    def __init__(self, field: str, message: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["BadInput"], tuple[str, str, str | None]]:
        return BadInput, (self.field, self.message, self.hint)

    @property
    def exit_code(self) -> int:
        """The exit code of a process that ends with this error."""
        return exit_code(FailureClass.BAD_INPUT)

    def verdict(self) -> Verdict:
        """This error as a verdict of class BadInput, cut to the contract's lengths."""
        return Verdict(
            failure_class=FailureClass.BAD_INPUT,
            message=clip(str(self), MAX_MESSAGE),
            hint=clip(self.hint, MAX_HINT) if self.hint else None,
            exit_code=self.exit_code,
            time=time.time(),
        )


class ArtifactChanged(BadInput):
    """What is at the place of an artifact is not that artifact. Arguments as of BadInput."""

    def __reduce__(self) -> tuple[type["ArtifactChanged"], tuple[str, str, str | None]]:
        return ArtifactChanged, (self.field, self.message, self.hint)

    def verdict(self) -> Verdict:
        """This error as a verdict of class BadInput, with its reason."""
        return super().verdict().model_copy(update={"reason": "ArtifactChanged"})


class RowFault(Exception):
    """A row cannot be used. Its text is the reason, the same for every row with this fault."""


def clip(text: str, limit: int) -> str:
    """`text` with at most `limit` characters; an ellipsis shows that something is missing."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def place_of(error: BaseException) -> str:
    """The line that raised it, such as ` (build.py:120)`; empty where it was not raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""


def plain_names(names: Iterable[str]) -> str:
    """Names of columns for a message; one that is no plain name may be content, such as the first line of a CSV."""
    return ", ".join(f"`{name}`" if _PLAIN_NAME.fullmatch(name) else f"one of {len(name)} characters" for name in names)


def words_of(error: BaseException) -> str:
    """The error's own words, where they are about files, memory or the program; else they may repeat a row of data."""
    own = isinstance(error, _OWN_WORDS) and not isinstance(error, ValueError)
    return str(error) if own else "see the pod's log for its words"


def full_disk_hint(error: BaseException) -> str | None:
    """What to do where `error` says that the workspace is full, else None."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or isinstance(error, WorkspaceFull) or _FULL_DISK.search(str(error)) is not None
    return "The workspace is full: raise spec.workspace.size." if full else None
