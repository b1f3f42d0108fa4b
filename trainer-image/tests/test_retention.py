"""The questions on what was forgotten: they can be asked of every model that a run can train."""

from pathlib import Path

import tiny

from hone_trainer.data.general import questions
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.scores.retention import encoded


def test_a_template_that_takes_no_plain_conversation_does_not_end_the_step(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.make_reward_model(tmp_path / "model"))
    tokenizer.chat_template = "{{ raise_exception('needs a system message') }}"
    rows = encoded(tokenizer, questions()[:2])
    tokenizer.chat_template = None
    assert rows.to_list() == encoded(tokenizer, questions()[:2]).to_list(), "asked as text"
