"""The tasks of `dev.outcomes`: a model, an objective, and rows to train and to test on."""

import csv
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.basemodel import cache as small_model
from dev.data import tickets
from dev.data.formats import FORMATS
from dev.data.reviews import reviews
from dev.smollm2 import cache as real_model
from hone.contract.objectives import Objective

SEED = 11
Rows = Iterator[dict[str, object]]


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        words: a description for the page, with the source of data that others made.
        objective: how it is learned.
        find_model: returns the base model's directory, or None where it is not built.
        rows: yields rows from the directory of data that others made, which is None where there is none; the first
            `test` of them are for the test.
        test: rows of the test split.
        train: rows to train on, of which Hone holds some out for validation.
        tokens: most tokens of an answer.
        needs_data: whether the rows come from that directory.
    """

    words: str
    objective: Objective
    find_model: Callable[[], Path | None]
    rows: Callable[[Path], Rows]
    test: int = 100
    train: int = 400
    tokens: int = 8
    needs_data: bool = False


def _chat(question: str, answer: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _banking77(data: Path) -> Rows:
    """The topic in words; test rows are those of the test file."""
    chance = random.Random(SEED)
    for name in ("test.csv", "train.csv"):
        with (data / "banking77" / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        chance.shuffle(rows)
        rows = rows[: TASKS["banking77"].test] if name == "test.csv" else rows
        for row in rows:
            question = f"Name the topic of this message to a bank: {row['text']}"
            yield _chat(question, row["category"].replace("_", " "))


def _gsm8k(data: Path) -> Rows:
    """Reasoning and `#### number`; test rows are those of the test file."""
    for name, most in (("test-500.jsonl", TASKS["gsm8k"].test), ("train-2000.jsonl", None)):
        with (data / "gsm8k" / name).open() as file:
            for line in itertools.islice(file, most):
                row = json.loads(line)
                yield _chat(row["question"], row["answer"])


def _tickets(_: Path) -> Rows:
    for message, ticket in tickets.tickets(700, SEED):
        yield tickets.chat_row(message, ticket)


def _reviews(form: str) -> Callable[[Path], Rows]:
    def rows(_: Path) -> Rows:
        for review in reviews(1200, SEED):
            yield FORMATS[form](review)

    return rows


TASKS: dict[str, Task] = {
    "tickets": Task(
        "messages to a shop's support into JSON (generated), SmolLM2-135M-Instruct",
        Objective.SFT,
        real_model.find,
        _tickets,
        tokens=80,
    ),
    "banking77": Task(
        "the topic of a message to a bank (Banking77, CC BY 4.0), SmolLM2-135M-Instruct",
        Objective.SFT,
        real_model.find,
        _banking77,
        train=800,
        tokens=16,
        needs_data=True,
    ),
    "gsm8k": Task(
        "school arithmetic with its steps (GSM8K, MIT), SmolLM2-135M-Instruct",
        Objective.SFT,
        real_model.find,
        _gsm8k,
        test=50,
        train=300,
        tokens=160,
        needs_data=True,
    ),
    "reviews-sft": Task(
        "the sentiment of a review (generated), small base model",
        Objective.SFT,
        small_model.find,
        _reviews("chat"),
    ),
    "reviews-classes": Task(
        "the sentiment of a review as a class (generated), small base model",
        Objective.CLASSIFICATION,
        small_model.find,
        _reviews("text-label"),
    ),
    "reviews-pairs": Task(
        "the better of two answers, as a preference (generated), small base model",
        Objective.DPO,
        small_model.find,
        _reviews("preference"),
    ),
    "reviews-reward": Task(
        "the better of two answers, as a reward (generated), small base model",
        Objective.REWARD,
        small_model.find,
        _reviews("preference"),
    ),
}


def write(task: Task, data: Path, directory: Path) -> dict[str, Any]:
    """Write the rows; returns the RunConfig's paths of the data."""
    rows = task.rows(data)
    paths = {}
    for split, count in (("test", task.test), ("train", task.train)):
        paths[split] = str(directory / f"{split}.jsonl")
        with Path(paths[split]).open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in itertools.islice(rows, count))
    return {**paths, "minSamples": 1}
