"""The seams of the data: one module renders chat templates, and conversations keep their tools."""

import ast
import copy
from pathlib import Path
from typing import Any

import hone_trainer
from hone_trainer.data.conversation import Conversation

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
TOOL = {"type": "function", "function": {"name": "lookup", "description": "Finds.", "parameters": {}}}
SHOWS_TOOLS = (
    "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}{{ messages | map(attribute='content') | join }}"
)


def test_only_one_module_of_the_trainer_renders_chat_templates() -> None:
    root = Path(str(hone_trainer.__file__)).parent
    callers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "apply_chat_template"
    }
    assert callers == {"data/conversation.py"}


def test_every_part_of_a_conversation_has_its_tools() -> None:
    conversation = Conversation((USER,), (TOOL,))
    assert conversation.followed_by((ANSWER,)) == Conversation((USER, ANSWER), (TOOL,))
    assert conversation.followed_by((ANSWER,)).until(1) == conversation


def test_the_template_gets_the_tools_and_none_where_there_are_none(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = SHOWS_TOOLS
    assert Conversation((USER,), (TOOL,)).render(tokenizer) == "<lookup>a"
    assert Conversation((USER,)).render(tokenizer) == "a"
    tokenizer.chat_template = "{{ tools is none }}{{ messages[0].content }}"
    assert Conversation((USER,)).render(tokenizer) == "Truea"
