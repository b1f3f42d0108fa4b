"""Row formats: telling them apart, and turning a row into a Sample or into the reason why it cannot be one."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.protocol.errors import RowFault

ROLES = ("system", "developer", "user", "assistant")

COLUMNS: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.SHARE_GPT: ("conversations",),
    DataFormat.ALPACA: ("instruction", "output"),
    DataFormat.UNPAIRED_PREFERENCE: ("prompt", "completion", "label"),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DataFormat.TEXT_LABEL: ("text", "label"),
    DataFormat.PREFERENCE: ("chosen", "rejected"),
    DataFormat.PROMPT: ("prompt",),
}
"""The columns that each format needs, the more specific formats first. Others are left alone."""

OPTIONAL_COLUMNS = ("input", "system", "reference")
"""Columns that some formats use where they are there."""

DEFAULT_TRAIN_ON = {
    DataFormat.MESSAGES: TrainOn.ASSISTANT,
    DataFormat.SHARE_GPT: TrainOn.ASSISTANT,
    DataFormat.ALPACA: TrainOn.ASSISTANT,
    DataFormat.PROMPT_COMPLETION: TrainOn.COMPLETION,
}

EXAMPLES = {
    DataFormat.MESSAGES: '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    DataFormat.PROMPT_COMPLETION: '{"prompt": "…", "completion": "…"}',
    DataFormat.SHARE_GPT: '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
    DataFormat.ALPACA: '{"instruction": "…", "input": "…", "output": "…"}',
    DataFormat.TEXT_LABEL: '{"text": "…", "label": "…"}',
    DataFormat.PREFERENCE: '{"prompt": "…", "chosen": "…", "rejected": "…"}',
    DataFormat.UNPAIRED_PREFERENCE: '{"prompt": "…", "completion": "…", "label": true}',
    DataFormat.PROMPT: '{"prompt": "…", "reference": "…"}',
}

_SENDERS = {"human": "user", "gpt": "assistant", "system": "system"}
"""ShareGPT's names of the roles."""

MAX_LABEL = 128
"""Most characters of a class's name."""

_SAME = "`chosen` and `rejected` are the same"
_NO_PROMPT = "`chosen` and `rejected` begin differently, so that there is no prompt: give it as `prompt`"

Message = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """One row, checked.

    Attributes:
        messages: the conversation; empty for plain text.
        completion_start: index of the first message of the completion.
        prompt: plain text that is given, or that has a class; empty for a conversation.
        completion: plain text that is to follow; of two answers the better one.
        rejected: the worse one of two answers, as text or messages; empty where there is one answer.
        label: the class of the text, or whether the completion is good (`RATED`); None where there are no classes.
            A number sorts as one.
        references: what an answer that the model writes itself is compared to; empty where nothing is.
    """

    messages: tuple[Message, ...] = ()
    completion_start: int = 0
    prompt: str = ""
    completion: str = ""
    rejected: "tuple[Message, ...] | str" = ""
    label: str | int | None = None
    references: tuple[str, ...] = ()

    @property
    def is_chat(self) -> bool:
        """Whether this is a conversation, not plain text."""
        return bool(self.messages)

    @property
    def answer_start(self) -> int:
        """Index of the first message of what is tested: the last assistant turn, or all of a rated answer.

        Where there is no answer, as many as there are messages.
        """
        rated = bool(self.rejected) or self.label is not None
        unanswered = self.completion_start == len(self.messages)
        return self.completion_start if rated or unanswered else self.last_assistant

    @property
    def last_assistant(self) -> int:
        """Index of the last assistant turn."""
        return max(i for i, message in enumerate(self.messages) if message["role"] == "assistant")


def detect(row: dict[str, Any], formats: Collection[DataFormat] = tuple(COLUMNS)) -> DataFormat | None:
    """The format whose columns a row has, or None; of several the first of `COLUMNS` that is wanted.

    A row whose label is true or false is no row of `PromptCompletion`: its completion may be a bad one. Beside a
    completion, any other label is a column like any other, 1 and 0 too, unless ratings are wanted and completions not.

    A column without a value does not count: tables have every column in every row. But where ratings are wanted and
    completions not, such a label beside a completion is one that is missing. A prompt alone is told only where
    that is wanted: else what should follow it is missing.

    Args:
        row: as it was read.
        formats: those that are wanted; another one is told only where a row has none of these.
    """
    found = {column for column, value in row.items() if value is not None}
    rates = DataFormat.UNPAIRED_PREFERENCE in formats and DataFormat.PROMPT_COMPLETION not in formats
    if rates and "label" in row and "completion" in found:
        found.add("label")
    rated = _truth(row.get("label")) is not None
    fits = [format for format, columns in COLUMNS.items() if found.issuperset(columns)]
    if DataFormat.PROMPT in fits and DataFormat.PROMPT not in formats:
        fits.remove(DataFormat.PROMPT)
    if DataFormat.PROMPT_COMPLETION not in formats:
        rated = DataFormat.UNPAIRED_PREFERENCE in formats or _rating(row.get("label")) is not None
    if DataFormat.UNPAIRED_PREFERENCE in fits:
        fits.remove(DataFormat.PROMPT_COMPLETION if rated else DataFormat.UNPAIRED_PREFERENCE)
    return next((format for format in fits if format in formats), fits[0] if fits else None)


def to_sample(row: dict[str, Any], format: DataFormat) -> Sample:
    """The row as a Sample.

    Raises:
        RowFault: a column is missing, of the wrong type or empty, or there is nothing to train on.
    """
    for column in COLUMNS[format]:
        if column not in row:
            raise RowFault(f"no column `{column}`")
    if row.get("tools") not in (None, "", "[]", []):
        raise RowFault("`tools` is set: tool calls are not supported")
    return _READERS[format](row)


def _from_messages(row: dict[str, Any]) -> Sample:
    return _conversation(_messages(row["messages"], "messages"), "messages")


def _from_share_gpt(row: dict[str, Any]) -> Sample:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise RowFault("`conversations` is not a list of turns")
    if not turns:
        raise RowFault("`conversations` is empty")
    if all(isinstance(turn, dict) and "role" in turn for turn in turns):
        raise RowFault("`conversations` has turns with `role`: name it in spec.dataset.columns, as `messages`")
    return _conversation((*_system(row), *(_turn(turn) for turn in turns)), "conversations")


def _from_alpaca(row: dict[str, Any]) -> Sample:
    # One turn each, so that the model is asked as its chat template asks; joined as LLaMA-Factory joins them.
    asked = "\n".join(text for text in (_text(row, "instruction"), _text(row, "input", "")) if text.strip())
    output = _text(row, "output")
    if not asked:
        raise RowFault("`instruction` is empty")
    if not output.strip():
        raise RowFault("`output` is empty")
    if row.get("history"):
        raise RowFault("`history` is set: write the whole conversation as `messages`")
    turns = ({"role": "user", "content": asked}, {"role": "assistant", "content": output})
    return _conversation((*_system(row), *turns), "instruction")


def _text(row: dict[str, Any], column: str, default: str | None = None) -> str:
    """A column's text; `default`, if there is one, where it has no value."""
    value = row.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise RowFault(f"`{column}` is not a string")
    return value


def _system(row: dict[str, Any]) -> tuple[Message, ...]:
    """The system's turn of a row that has it as a column."""
    content = _text(row, "system", "")
    return ({"role": "system", "content": content},) if content.strip() else ()


def _turn(turn: Any) -> Message:
    """One of ShareGPT's turns as a message."""
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise RowFault("`conversations` holds something that is not a turn with `from` and `value`")
    sender, value = turn["from"], turn["value"]
    if not isinstance(sender, str) or sender not in _SENDERS:
        raise RowFault(f"`conversations` has a `from` other than {', '.join(_SENDERS)}")
    return _message({"role": _SENDERS[sender], "content": value}, "conversations")


def _conversation(messages: tuple[Message, ...], column: str) -> Sample:
    """A conversation whose completion is its last answer."""
    if not any(message["role"] == "assistant" for message in messages):
        raise RowFault(f"no assistant turn in `{column}`")
    sample = Sample(messages=messages)
    if sample.last_assistant == 0:
        raise RowFault(f"nothing before the assistant's turn in `{column}`")
    return Sample(messages=messages, completion_start=sample.last_assistant)


def _from_prompt_completion(row: dict[str, Any]) -> Sample:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not prompt.strip():
            raise RowFault("`prompt` is empty")
        if not completion.strip():
            raise RowFault("`completion` is empty")
        return Sample(prompt=prompt, completion=completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        head, tail = _messages(prompt, "prompt"), _messages(completion, "completion")
        if not any(message["role"] == "assistant" for message in tail):
            raise RowFault("no assistant turn in `completion`")
        return Sample(messages=head + tail, completion_start=len(head))
    raise RowFault("`prompt` and `completion` must both be strings or both be lists of messages")


def _from_text_label(row: dict[str, Any]) -> Sample:
    text, label = row["text"], row["label"]
    if not isinstance(text, str):
        raise RowFault("`text` is not a string")
    if not text.strip():
        raise RowFault("`text` is empty")
    # A boolean is an integer to Python, but hardly a class's name to its author.
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise RowFault("`label` is neither a string nor an integer")
    label = label.strip() if isinstance(label, str) else label
    if label == "":
        raise RowFault("`label` is empty")
    if len(str(label)) > MAX_LABEL:
        raise RowFault(f"`label` has more than {MAX_LABEL} characters, too many for the name of a class")
    return Sample(prompt=text, label=label)


def _from_unpaired_preference(row: dict[str, Any]) -> Sample:
    rating = _rating(row["label"])
    if rating is None:
        raise RowFault("`label` is neither true nor false, nor 1 or 0")
    sample = _from_prompt_completion(row)
    if sample.is_chat and sample.messages[sample.completion_start]["role"] != "assistant":
        raise RowFault("`completion` does not begin with an assistant turn")
    return replace(sample, label=str(rating).lower())


def _rating(label: Any) -> bool | None:
    """Whether a completion is good: true, false, 1, 0 or, as tables of text have it, their names; else None."""
    if isinstance(label, str):
        label = {"1": 1, "0": 0}.get(label.strip(), label)
    return bool(label) if isinstance(label, int) and label in (0, 1) else _truth(label)


def _truth(label: Any) -> bool | None:
    """A boolean, or its name; else None."""
    if isinstance(label, str):
        return {"true": True, "false": False}.get(label.strip().lower())
    return label if isinstance(label, bool) else None


def _from_preference(row: dict[str, Any]) -> Sample:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    given = [chosen, rejected, *([] if prompt is None else [prompt])]
    if all(isinstance(value, str) for value in given):
        return _text_pair(prompt, chosen, rejected)
    if all(isinstance(value, list) for value in given):
        return _chat_pair(prompt, chosen, rejected)
    if isinstance(prompt, str) and isinstance(chosen, list) and isinstance(rejected, list):
        # As in UltraFeedback: the question once more as text, beside whole conversations or bare answers.
        whole = all(_asks(row[column], column, prompt) for column in ("chosen", "rejected"))
        return _chat_pair(None if whole else [{"role": "user", "content": prompt}], chosen, rejected)
    raise RowFault("`chosen` and `rejected` must both be strings or both be lists of messages, and `prompt` alike")


def _asks(conversation: list[Any], column: str, question: str) -> bool:
    """Whether a user's turn of it is this question."""
    turns = _messages(conversation, column)
    return any(turn["role"] == "user" and turn["content"].strip() == question.strip() for turn in turns)


def _text_pair(prompt: str | None, chosen: str, rejected: str) -> Sample:
    for column, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise RowFault(f"`{column}` is empty")
    if chosen.strip() == rejected.strip():
        raise RowFault(_SAME)
    if prompt is None:
        end = _common_words(chosen, rejected)
        prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        if not prompt.strip():
            raise RowFault(_NO_PROMPT)
    if not prompt.strip():
        raise RowFault("`prompt` is empty")
    return Sample(prompt=prompt, completion=chosen, rejected=rejected)


def _common_words(first: str, second: str) -> int:
    """Characters of the words that both texts begin with, so that something is left of either."""
    common = common_length(first, second)
    end = 0
    for gap in re.finditer(r"\s+", first[:common]):
        if first[gap.end() :].strip() and second[gap.end() :].strip():
            # A single space goes with the word after it, as in the tokens of most models.
            end = gap.start() if gap.group() == " " else gap.end()
    return end


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items both begin with."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)


def _chat_pair(prompt: list[Any] | None, chosen: list[Any], rejected: list[Any]) -> Sample:
    better, worse = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    if better == worse:
        raise RowFault(_SAME)
    if prompt is None:
        start = common_length(better, worse)
        head, better, worse = better[:start], better[start:], worse[start:]
        if not head:
            raise RowFault(_NO_PROMPT)
    else:
        head = _messages(prompt, "prompt")
    for column, answer in (("chosen", better), ("rejected", worse)):
        if not answer or answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            raise RowFault(
                f"`{column}` does not, after the prompt, begin and end with an assistant turn; where both hold the "
                "whole conversation, leave `prompt` out"
            )
    return Sample(messages=head + better, completion_start=len(head), rejected=worse)


def _from_prompt(row: dict[str, Any]) -> Sample:
    prompt, references = row["prompt"], _references(row.get("reference"))
    if isinstance(prompt, list):
        messages = _messages(prompt, "prompt")
        if messages[-1]["role"] == "assistant":
            raise RowFault("`prompt` ends with an assistant turn: leave that out, the model is to write it")
        return Sample(messages=messages, completion_start=len(messages), references=references)
    if not isinstance(prompt, str):
        raise RowFault("`prompt` is neither a string nor a list of messages")
    if not prompt.strip():
        raise RowFault("`prompt` is empty")
    return Sample(prompt=prompt, references=references)


def _references(value: Any) -> tuple[str, ...]:
    """What an answer is compared to: one string or several."""
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise RowFault("`reference` is neither a string nor a list of strings")
    if not all(one.strip() for one in values):
        raise RowFault("`reference` is empty: leave it out where an answer is compared to nothing")
    return tuple(values)


_READERS: dict[DataFormat, Callable[[dict[str, Any]], Sample]] = {
    DataFormat.MESSAGES: _from_messages,
    DataFormat.SHARE_GPT: _from_share_gpt,
    DataFormat.ALPACA: _from_alpaca,
    DataFormat.PROMPT_COMPLETION: _from_prompt_completion,
    DataFormat.TEXT_LABEL: _from_text_label,
    DataFormat.PREFERENCE: _from_preference,
    DataFormat.UNPAIRED_PREFERENCE: _from_unpaired_preference,
    DataFormat.PROMPT: _from_prompt,
}


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowFault(f"`{column}` is not a list of messages")
    if not value:
        raise RowFault(f"`{column}` is empty")
    return tuple(_message(item, column) for item in value)


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        raise RowFault(f"`{column}` holds something that is not a message with `role` and `content`")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise RowFault(f"`{column}` has a role other than {', '.join(ROLES)}")
    if item.get("tool_calls"):
        raise RowFault(f"`{column}` has tool calls, which are not supported")
    if not isinstance(content, str):
        raise RowFault(f"`{column}` has a message whose `content` is not a string")
    if role == "assistant" and not content.strip():
        raise RowFault(f"`{column}` has an empty assistant turn")
    return {"role": role, "content": content}
