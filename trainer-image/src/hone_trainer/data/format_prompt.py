"""Rows with a prompt or a text, and at most one answer or a label."""

from dataclasses import replace
from typing import Any

from hone_trainer.data.format_chat import from_alpaca, require_no_system, with_system
from hone_trainer.data.label_values import parse_label
from hone_trainer.data.sample import Sample
from hone_trainer.data.turns import parse_messages, parse_turns, unpacked
from hone_trainer.protocol.errors import RowFault

ALPACA = ("instruction", "input", "output", "history", "system")
"""Columns of a rated answer that is written as Alpaca writes one."""
RATINGS = ("label", "kto_tag")
"""Columns with a rating: Hone's, and LLaMA-Factory's."""


def from_prompt_completion(row: dict[str, Any]) -> Sample:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not prompt.strip():
            raise RowFault("`prompt` is empty")
        if not completion.strip():
            raise RowFault("`completion` is empty")
        require_no_system(row, "prompt")
        return Sample(prompt=prompt, completion=completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        head, tail = with_system(row, parse_messages(prompt, "prompt"), "prompt"), parse_turns(completion, "completion")
        answers = [i for i, message in enumerate(tail.messages) if message["role"] == "assistant"]
        if not answers:
            raise RowFault("no assistant turn in `completion`")
        if answers[-1] in tail.untrained:
            raise RowFault("the last assistant turn in `completion` has weight 0: leave it out")
        untrained = frozenset(len(head) + i for i in tail.untrained)
        return Sample(messages=head + tail.messages, completion_start=len(head), untrained=untrained)
    raise RowFault("`prompt` and `completion` must both be strings or both be lists of messages")


def from_unpaired_preference(row: dict[str, Any]) -> Sample:
    good = rating(row["label"])
    if good is None:
        raise RowFault("`label` is not true, false, 1 or 0")
    sample = from_prompt_completion(row)
    if sample.untrained:
        raise RowFault("`completion` has an assistant turn of weight 0, but the answer is rated as a whole")
    if sample.is_chat and sample.messages[sample.completion_start]["role"] != "assistant":
        raise RowFault("`completion` does not begin with an assistant turn")
    return replace(sample, label=str(good).lower())


def rated_conversation(row: dict[str, Any]) -> tuple[str, ...]:
    """The columns of a whole conversation whose last answer a row rates, as LLaMA-Factory's rows do; none in any other
    row."""
    rated = any(rating(row.get(name)) is not None for name in RATINGS)
    if not rated or row.get("prompt") is not None or row.get("completion") is not None:
        return ()
    whole = next(((name,) for name in ("messages", "conversations") if row.get(name)), ())
    return whole or (ALPACA if row.get("instruction") and row.get("output") else ())


def with_prompt(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """The row with its conversation as `prompt` and `completion`, and its rating as `label`; arguments as
    `rated_conversation` returns them."""
    column = columns[0]
    turns = [*from_alpaca(row).messages] if columns is ALPACA else unpacked(row[column], column)
    if not isinstance(turns, list) or len(turns) < 2:
        raise RowFault(f"`{column}` is not a list of messages that ends with an answer to something")
    label = next(row[name] for name in RATINGS if rating(row.get(name)) is not None)
    others = {name: value for name, value in row.items() if name not in (*columns, *RATINGS)}
    return {**others, "prompt": turns[:-1], "completion": turns[-1:], "label": label}


def rating(label: Any) -> bool | None:
    """Whether a completion is good: true, false, 1 or 0, also as text, as CSV has them; None for anything else."""
    if isinstance(label, str):
        label = {"1": 1, "0": 0}.get(label.strip(), label)
    return bool(label) if isinstance(label, int) and label in (0, 1) else truth(label)


def truth(label: Any) -> bool | None:
    """A boolean, or the boolean that a text names; else None."""
    if isinstance(label, str):
        return {"true": True, "false": False}.get(label.strip().lower())
    return label if isinstance(label, bool) else None


def from_prompt(row: dict[str, Any]) -> Sample:
    prompt, references = row["prompt"], _references(row.get("reference"))
    if isinstance(prompt, list):
        messages = with_system(row, parse_messages(prompt, "prompt"), "prompt")
        if messages[-1]["role"] == "assistant":
            raise RowFault("`prompt` ends with an assistant turn: remove that turn, since the model writes it")
        return Sample(messages=messages, completion_start=len(messages), references=references)
    if not isinstance(prompt, str):
        raise RowFault("`prompt` is neither a string nor a list of messages")
    if not prompt.strip():
        raise RowFault("`prompt` is empty")
    require_no_system(row, "prompt")
    return Sample(prompt=prompt, references=references)


def _references(value: Any) -> tuple[str, ...]:
    """The texts that an answer is compared with: none, one or several."""
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise RowFault("`reference` is neither a string nor a list of strings")
    if not all(one.strip() for one in values):
        raise RowFault("`reference` is empty: leave it out if answers are not compared with one")
    return tuple(values)


def from_text(row: dict[str, Any]) -> Sample:
    text = row["text"]
    if not isinstance(text, str):
        raise RowFault("`text` is not a string")
    if not text.strip():
        raise RowFault("`text` is empty")
    return Sample(prompt=text, whole=True)


def from_text_label(row: dict[str, Any]) -> Sample:
    return replace(from_text(row), label=parse_label(row["label"]))
