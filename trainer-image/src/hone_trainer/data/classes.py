"""The classes of labeled rows: which there are, how many rows each has, and what is wrong with them."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hone.contract.plan import ClassRows
from hone_trainer.data.assign import RowRef
from hone_trainer.data.label_values import names_of
from hone_trainer.protocol.errors import BadInput, clip

MAX_CLASSES = 1000
SKEWED = 3.0
"""Rows of the largest class over those of the smallest, above which classes count as unbalanced."""
MAX_SHOWN = 20
MAX_WEIGHT = 20.0
"""Most that the rows of a class weigh where a row may have several classes."""
RATED = ("false", "true")
"""The classes of answers that were rated one by one: bad ones and good ones."""

_SPLIT_FIELDS = {"validation": "spec.dataset.validation", "test": "spec.dataset.test"}


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their indices, with their training rows.

    Attributes:
        names: what the rows call them; integers in decimal.
        rows: training rows of each.
        total: training rows, where a row may have several classes or none; None: each has one.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    total: int | None = None

    @property
    def several(self) -> bool:
        """Whether a row may have several classes, or none."""
        return self.total is not None

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {"names": self.names, "rows": self.rows} | ({"total": self.total} if self.several else {})

    @classmethod
    def of(cls, content: dict[str, Any] | None) -> "Classes | None":
        """What `to_dict` returned; None of None. Raises KeyError, TypeError or ValueError for anything else."""
        if not content:
            return None
        total = content.get("total")
        names, rows = tuple(map(str, content["names"])), tuple(map(int, content["rows"]))
        return cls(names, rows, None if total is None else int(total))

    @property
    def skew(self) -> float:
        """Rows of the largest class over those of the smallest."""
        return max(self.rows) / max(1, min(self.rows))

    @property
    def majority(self) -> int:
        """The class with the most training rows; the first of them."""
        return self.rows.index(max(self.rows))

    def weights(self) -> list[float]:
        """n / (k · n_c) per class, for n rows in k classes, n_c in this one: each class weighs the same in the loss,
        and the mean over the training rows is 1. (The "balanced" weights of G. King, L. Zeng, Logistic Regression in
        Rare Events Data, 2001.)

        Where a row may have several classes: how much the rows that have a class weigh in the loss of that class, the
        others weighing 1. (n − n_c) / n_c makes both weigh the same; from 1 to `MAX_WEIGHT`."""
        if self.total is not None:
            return [min(MAX_WEIGHT, max(1.0, self.total / max(1, rows) - 1)) for rows in self.rows]
        total, count = sum(self.rows), len(self.rows)
        return [total / (count * max(1, rows)) for rows in self.rows]

    def shown(self) -> list[ClassRows]:
        """The most frequent classes, at most `MAX_SHOWN`."""
        order = sorted(range(len(self.names)), key=lambda i: (-self.rows[i], i))[:MAX_SHOWN]
        return [ClassRows(label=self.names[i], rows=self.rows[i]) for i in order]


def find_classes(refs: list[RowRef]) -> Classes:
    """The classes of the training rows: in numeric order where all are integers, else in alphabetical order.

    Raises:
        BadInput: there is one class only, or too many, or a class without a training row, or some rows may have several
            classes and others not.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("train", *_SPLIT_FIELDS)}
    for ref in refs:
        if ref.split:
            counts[ref.split].update(names_of(ref.label))
    train, total = counts["train"], _total(refs)
    if len(train) > MAX_CLASSES:
        raise BadInput(
            "spec.dataset.train",
            f"the rows have {len(train)} different labels; at most {MAX_CLASSES} are allowed",
            "Check that `label` names a class, not a text or a number to predict.",
        )
    if len(train) < 2:
        raise BadInput(
            "spec.dataset.train",
            _one_class(train, total),
            "Add rows of at least two classes.",
        )
    for split, field in _SPLIT_FIELDS.items():
        if unknown := {name: count for name, count in counts[split].items() if name not in train}:
            raise BadInput(
                field,
                f"{_some(unknown)} {'is a label' if len(unknown) == 1 else 'are labels'} of {sum(unknown.values())} "
                f"{split} rows, but of no training row",
                "Add training rows of these classes (enough for every split, if Hone splits the data), or remove them.",
            )
    # CSV has numbers as text.
    numbers = all(re.fullmatch(r"0|-?[1-9][0-9]*", name) for name in train)
    names = sorted(train, key=int) if numbers else sorted(train)
    return Classes(tuple(names), tuple(train[name] for name in names), total)


def _total(refs: list[RowRef]) -> int | None:
    """The training rows, if labels are lists of classes.

    Raises:
        BadInput: only some are.
    """
    lists = sum(isinstance(ref.label, tuple) for ref in refs)
    if not lists:
        return None
    if lists < len(refs):
        raise BadInput(
            "spec.dataset.train",
            f"`label` is a list of classes in {lists} rows, and one class in {len(refs) - lists}",
            "Write a list in every row, also where a text has one class or none.",
        )
    return sum(ref.split == "train" for ref in refs)


def _one_class(train: "Counter[str]", total: int | None) -> str:
    if not train:
        return "no training row has a class" if total else "no training row is left"
    return (
        f"all training rows have the same label, {_some(train)}"
        if total is None
        else f"{_some(train)} is the only class"
    )


def rated_weights(classes: Classes) -> tuple[float, float]:
    """The weights of good and of bad answers in the loss, of which one is 1: the least that brings the good ones'
    share, weight × rows, to 1 to 4/3 of the bad ones' (K. Ethayarajh et al., KTO, arXiv 2402.01306, equation 8)."""
    bad, good = (max(1, rows) for rows in classes.rows)
    return max(1.0, bad / good), max(1.0, 3 * good / (4 * bad))


def skew_warning(classes: Classes) -> list[str]:
    """A sentence where the classes are of very unequal size."""
    if classes.skew <= SKEWED:
        return []
    least = classes.rows.index(min(classes.rows))
    most = classes.majority
    return [
        f"The classes are unbalanced: {_quoted(classes.names[most])} has {classes.rows[most]} training rows, "
        f"{_quoted(classes.names[least])} has {classes.rows[least]}. Read macroF1 rather than "
        f"{'microF1' if classes.several else 'accuracy'}."
    ]


def case_warning(classes: Classes) -> list[str]:
    """A sentence where the names of classes differ in case or spacing alone."""
    by_name: dict[str, list[str]] = {}
    for name in classes.names:
        by_name.setdefault(" ".join(name.casefold().split()), []).append(name)
    alike = [names for names in by_name.values() if len(names) > 1]
    if not alike:
        return []
    listed = ", ".join(_quoted(name) for names in alike[:3] for name in names[:4])
    return [f"{sum(map(len, alike))} classes differ from another in case or spacing alone: {listed}. Check the labels."]


def _quoted(name: str) -> str:
    return f"`{clip(name, 40)}`"


def _some(names: "dict[str, int]") -> str:
    shown = ", ".join(_quoted(name) for name in sorted(names)[:5])
    return shown + (" …" if len(names) > 5 else "")
