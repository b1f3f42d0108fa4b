"""Rows for tests of prepare: short conversations, a chat template, and writing them as JSONL."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML with generation marks around what the assistant says, the end of its turn included."""

SUBJECTS = ("kettle", "lamp", "chair", "radio", "blender", "keyboard", "tent", "jacket", "drill", "clock")
OPENINGS = ("I bought this", "We got a", "My sister sent me the", "They sold me one", "This is a", "Here is my")
CLAUSES = {
    "positive": ("and it works well.", "and I am keeping it.", "and it was worth the money."),
    "negative": ("but it broke at once.", "and it went back to the shop.", "and I regret it."),
}


def chat_row(i: int) -> dict[str, Any]:
    """A short conversation; no two numbers below 10,000 give the same."""
    answer = ("positive", "negative")[i % 2]
    clause = CLAUSES[answer][i // 2 % 3]
    text = f"{OPENINGS[i // 6 % 6]} {SUBJECTS[i // 36 % 10]} {clause} Order {i}."
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write one line per row: a string as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
