"""What a pod that lies may report: valid messages, changed at random, the same ones for the same seed."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hone.contract.plan import BadRows, ClassRows
from hone.contract.progress import Progress
from hone.contract.results import StepResult
from tests.unit.core import make

HIDDEN = "\x00\x07\x1b\x7f\x85\x9b\u00ad\u034f\u061c\u115f\u200b\u200e\u2028\u202e\u2066\u3164\ufe0f\ufeff\U000e0041"
WORDS = (
    "",
    " ",
    "\x1b[2J\x1b]0;owned\x07",
    "all good\nREADY   True",
    "invoice \u202efdp.exe",
    "\ud800",
    "a" * 63,
    "\u202e" * 200,
    "x" * 1024,
    "é" * 1500,
    "{{ .Values }}",
    "../../etc/passwd",
    HIDDEN,
)
NUMBERS = (
    0, -1, 1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, 10**30, 0.5, -0.0, 1e300, -1e300, 1e-320,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], {"": ""}, "NaN", "9" * 400)


def results() -> list[StepResult]:
    """One valid message of each kind, with every part that a message may have."""
    rows = {"bad_rows": [BadRows(reason="no answer", count=2, first="line 3")], "example": "«a»"}
    classes = {"class_count": 2, "classes": [ClassRows(label="a", rows=1), ClassRows(label="b", rows=2)]}
    plan = {"reasons": {"learningRate": "the default", "epochs": "set"}, "warnings": ["few rows"]}
    prepared = make.prepared(**plan).model_copy(update={"dataset": make.dataset(**rows, **classes)})
    trained = make.trained().model_copy(update={"restarts": 1, "changes": ["micro-batch 4 instead of 8"]})
    verdict = make.verdict("Crashed", hint="look at rank 1", rank=1, node=0, exit_code=-9, step=7, time=1.7e9)
    return [prepared, trained, make.finished(), verdict]


def progress(pod_uid: str) -> Progress:
    """A valid answer with every field."""
    return Progress(
        pod_uid=pod_uid, stage="Training", step=5, total_steps=300, epoch=0.1, loss=1.5, reward=0.2, eval_loss=1.4,
        learning_rate=1e-4, tokens_per_second=900.5, seconds_per_step=0.5, checkpoint_step=3, resumed_from_step=1,
        restarts=1, changes=["micro-batch 4 instead of 8"], observed_time=1.7e9,
    )  # fmt: skip


def changed(random: Random, value: dict[str, Any]) -> bytes:
    """A message with one to three changes: of its values, and one time in four of its bytes as well."""
    tree = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 3)):
        _change(random, tree)
    body = json.dumps(tree, ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")
    return _bytes_changed(random, body) if random.random() < 0.25 else body


def _change(random: Random, tree: dict[str, Any]) -> None:
    """Replace, extend, drop or repeat one node of the message."""
    holder, key = random.choice(list(_nodes(tree)))
    old = holder[key]
    kind = random.randrange(6)
    if isinstance(old, int | float) and kind < 4:
        holder[key] = random.choice(NUMBERS)
    elif kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(old, str):
        cut = random.randint(0, len(old))
        holder[key] = old[:cut] + random.choice(HIDDEN) * random.choice((1, 1, 40)) + old[cut:]
    elif kind == 2 and isinstance(old, list) and old:
        holder[key] = old * random.choice((2, 40, 400))
    elif kind == 3 and isinstance(old, dict):
        old[random.choice(WORDS)] = _value(random)
    elif kind == 4:
        nested: Any = old
        for _ in range(random.choice((2, 50))):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        holder[key] = nested
    else:
        holder[key] = _value(random)


def _value(random: Random) -> Any:
    """Any value, as a copy: a later change must not change what other messages get."""
    return copy.deepcopy(random.choice((*WORDS, *NUMBERS, *OTHERS)))


def _nodes(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of the tree, as what holds it and its key there."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _nodes(node[key])


def _bytes_changed(random: Random, body: bytes) -> bytes:
    at, kind = random.randrange(max(len(body), 1)), random.randrange(4)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + bytes([random.randrange(256)]) + body[at + 1 :]
    if kind == 2:
        return body[:at] + b"[" * random.choice((10, 3000)) + body[at:]
    return body[:at] + HIDDEN.encode() + body[at:]
