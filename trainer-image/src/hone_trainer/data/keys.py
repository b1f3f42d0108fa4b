"""Columns other than those that a format reads: some make the row bad, the others are counted as not used."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hone.contract.plan import UnusedKey
from hone.contract.settings import DataFormat
from hone_trainer.data.read import TURNS
from hone_trainer.data.sources import SPLITS
from hone_trainer.data.turns import MEDIA, filled, unused_keys
from hone_trainer.protocol.errors import RowFault, clip, plain_names

_ANSWERED = (
    DataFormat.MESSAGES,
    DataFormat.SHARE_GPT,
    DataFormat.ALPACA,
    DataFormat.PROMPT_COMPLETION,
    DataFormat.TEXT,
)
"""Formats whose answers are learned because they are good."""
_MAX_NAMES = 1000
_OTHERS = "other keys"
_MAX_SHOWN = 16
_SPLIT = "split="


def _tools(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    return f"`{name}` is set, but tools and their calls are read only from `messages`: write the row in that format"


def _media(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    return f"`{name}` is set: images, audio and video are not supported"


def _weight(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    return None if str(row[name]) in ("1", "1.0") else f"`{name}` is set: weights of rows are not supported"


def _left_out(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    if format not in _ANSWERED or str(row[name]).strip().lower() not in ("0", "0.0", "false"):
        return None
    return f"`{name}` says that the row is not to be learned: remove such rows, or the column"


def _rating(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    rated = isinstance(row[name], bool) or str(row[name]).strip().lower() in ("true", "false")
    if format not in _ANSWERED or not rated:
        return None
    return (
        f"`{name}` is true or false: the row is a rated answer, not one to learn from. Set spec.objective to KTO, "
        "which learns from ratings, or keep only the good rows and remove the column"
    )


def _comparison(row: dict[str, Any], name: str, format: DataFormat) -> str | None:
    # UltraFeedback repeats the better conversation as `messages`.
    repeats = row.get("chosen") is not None and row.get("messages") == row["chosen"]
    if format not in _ANSWERED or repeats:
        return None
    return (
        f"`{name}` is set: the row compares answers. Set spec.objective to DPO, ORPO or Reward, or remove the columns "
        "`chosen` and `rejected`"
    )


_CHECKS: dict[str, Callable[[dict[str, Any], str, DataFormat], str | None]] = {
    **dict.fromkeys(("tools", "functions", "tool_defs", "function_call", "tool_calls", "toolConfig"), _tools),
    **dict.fromkeys(MEDIA, _media),
    **dict.fromkeys(("sample_weight", "loss_weight"), _weight),
    **dict.fromkeys(("weight", "train"), _left_out),
    **dict.fromkeys(("label", "kto_tag"), _rating),
    **dict.fromkeys(("chosen", "rejected"), _comparison),
}
"""Columns that change what the row should teach, by what makes of them a fault."""


def check_columns_beside(row: dict[str, Any], format: DataFormat, used: Iterable[str]) -> None:
    """Refuse a row that has a column other than those of its format that changes what it should teach.

    Raises:
        RowFault: naming the column.
    """
    for name in _CHECKS.keys() & row.keys() - {*used}:
        if filled(row[name]) and (fault := _CHECKS[name](row, name, format)):
            raise RowFault(fault)


def unused_in(row: dict[str, Any], used: Iterable[str], *, training: bool = True) -> Iterator[str]:
    """The keys of a row that nothing reads: columns, and keys of messages once for each message.

    Args:
        row: as it was read.
        used: the columns that are read.
        training: whether the row is one of the training rows. A column `split` that says otherwise has its value in
            its name.
    """
    used = {*used}
    for name, value in row.items():
        if name not in used:
            if filled(value):
                held_out = training and name == "split" and SPLITS.get(str(value).strip().lower(), "train") != "train"
                yield f"{name}={str(value).strip().lower()}" if held_out else name
        elif name in TURNS:
            yield from unused_keys(value if isinstance(value, list) else [value], name)


@dataclass
class Unused:
    """Keys that nothing reads, with how often they were seen."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, names: Iterable[str]) -> None:
        """Count each of them; names beyond a bound are counted together."""
        for name in names:
            self.counts[name if name in self.counts or len(self.counts) < _MAX_NAMES else _OTHERS] += 1

    def merge(self, other: "Unused") -> None:
        """Add the counts of rows that follow."""
        for name, count in other.counts.items():
            known = name in self.counts or len(self.counts) < _MAX_NAMES
            self.counts[name if known else _OTHERS] += count

    def summary(self) -> list[UnusedKey]:
        """The most frequent ones, the rest as one."""
        ordered = [(name, count) for name, count in self.counts.most_common() if name != _OTHERS]
        others = self.counts[_OTHERS]
        shown = ordered if len(ordered) <= _MAX_SHOWN and not others else ordered[: _MAX_SHOWN - 1]
        result = [UnusedKey(key=_plain(name), count=count) for name, count in shown]
        if rest := others + sum(count for _, count in ordered[len(shown) :]):
            result.append(UnusedKey(key=_OTHERS, count=rest))
        return result

    def warnings(self) -> list[str]:
        """A sentence that names them."""
        if not self.counts:
            return []
        listed = ", ".join(f"{each.key} ({each.count})" for each in self.summary())
        sentences = [clip(f"Not used, with the number of rows or messages that have them: {listed}.", 512)]
        if count := sum(count for name, count in self.counts.items() if name.startswith(_SPLIT)):
            sentences.append(
                f"{count} rows say in their column `split` that they are held out, but they are treated as all others: "
                "write them to a file of their own, and name it in spec.dataset.test or spec.dataset.validation."
            )
        return sentences


def _plain(name: str) -> str:
    """The name for people; a part that is no plain name may be content."""
    if not name:
        return "a column without a name"
    if name.startswith(_SPLIT):
        return f"`{name}`"
    column, bracket, rest = name.partition("[]")
    return (
        f"`{name}`"
        if bracket and plain_names([column, rest.rpartition(".")[2]]).count("`") == 4
        else plain_names([name])
    )
