"""spec.dataset.chatTemplate and systemPrompt: rows are learned, scored and served with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rows import chat_row
from test_prepare import Pod, copy_of, pod

from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import Prepared, load_prepared
from hone_trainer.data.sample import Sample, with_system_prompt
from hone_trainer.models.chat_template import FILE, run_tokenizer, serve_template
from hone_trainer.models.merging import copy_served_files
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.planfile import load_plan

pytestmark = pytest.mark.slow

__all__ = ["pod"]

OWN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS = [chat_row(i) for i in range(60)]


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A model without a chat template."""
    return copy_of(tiny_model, tmp_path / "mnt" / "base", without=["chat_template.jinja"])


def written(pod: Pod, config: dict[str, Any], base: Path) -> tuple[RunConfig, Prepared]:
    config["paths"]["model"] = str(base)
    code, result = pod.run(config)
    assert code == 0, result.verdict
    run = RunConfig.from_dict(config)
    planned = load_plan(run)
    assert planned is not None
    return run, load_prepared(planned.prepared)


def refused(pod: Pod, config: dict[str, Any], base: Path) -> tuple[str, str]:
    config["paths"]["model"] = str(base)
    code, result = pod.run(config)
    assert code == 64
    assert result.verdict is not None
    return result.verdict.message, result.verdict.hint or ""


def own(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    path = tmp_path / "template" / "chat_template.jinja"
    path.parent.mkdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"chatTemplate": {"mounted": str(path)}}


def set_tokens(base: Path, **tokens: str | None) -> None:
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **tokens}))


def test_a_base_without_a_template_is_refused_until_one_is_set(pod: Pod, make_config: Any, base: Path) -> None:
    message, hint = refused(pod, make_config(ROWS), base)
    assert "the model has no chat template" in message
    assert "spec.dataset.chatTemplate" in hint
    run, prepared = written(pod, make_config(ROWS, data={"chatTemplate": {"name": "ChatML"}}), base)
    tokenizer = run_tokenizer(run)
    prompt, answer = prepared.test[0]["prompt"], prepared.test[0]["reference"]
    assert prompt.startswith("<|im_start|>user\n")
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.split("\n")[1].removesuffix("<|im_end|>")}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert served == prompt, "a server with the stored template asks with what was trained"
    row = prepared.train[0]
    learned = tokenizer.decode([token for token in row["labels"] if token != -100])
    assert learned in ("positive<|im_end|>", "negative<|im_end|>")
    assert answer in ("positive", "negative")


@pytest.mark.parametrize("adds_bos", [False, True])
def test_chatml_ends_a_message_with_a_token_that_the_tokenizer_has(
    pod: Pod, make_config: Any, base: Path, adds_bos: bool
) -> None:
    text = (base / "tokenizer.json").read_text()
    (base / "tokenizer.json").write_text(text.replace("<|im_end|>", "</s>").replace("<|im_start|>", "<s>"))
    set_tokens(base, eos_token="</s>", extra_special_tokens=["<s>"], bos_token="<s>")
    if adds_bos:
        content = json.loads((base / "tokenizer.json").read_text())
        bos = next(token["id"] for token in content["added_tokens"] if token["content"] == "<s>")
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}},
        }
        (base / "tokenizer.json").write_text(json.dumps(content))
    run, prepared = written(pod, make_config(ROWS, data={"chatTemplate": {"name": "ChatML"}}), base)
    tokenizer, row = run_tokenizer(run), prepared.train[0]
    assert tokenizer.decode(row["input_ids"]).startswith("<s><|im_start|>user" if adds_bos else "<|im_start|>user")
    learned = [token for token in row["labels"] if token != -100]
    assert learned[-1] == tokenizer.eos_token_id
    assert row["input_ids"].count(tokenizer.bos_token_id) == int(adds_bos)


def test_a_template_of_ones_own_replaces_the_models_in_training_and_in_the_artifact(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path
) -> None:
    model = copy_of(tiny_model, tmp_path / "model")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    (model / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    set_tokens(model, chat_template="{{ messages }}")
    data = own(tmp_path, OWN)
    run, prepared = written(pod, make_config(ROWS, data=data), model)
    assert prepared.test[0]["prompt"].startswith("<user>")
    assert prepared.test[0]["prompt"].endswith("<|im_end|><assistant>")
    shutil.rmtree(tmp_path / "template")
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    copy_served_files(model, artifact, "spec.model")
    serve_template(run, artifact)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(artifact).chat_template == run_tokenizer(run).chat_template == OWN
    names = {path.name for path in artifact.iterdir()}
    assert not {"additional_chat_templates", "chat_template.json"} & names
    assert "chat_template" not in json.loads((artifact / "tokenizer_config.json").read_text())


def test_another_template_gives_other_prepared_data(
    pod: Pod, make_config: Any, tiny_model: Path, tmp_path: Path
) -> None:
    _, first = written(pod, make_config(ROWS), tiny_model)
    config = make_config(ROWS, data=own(tmp_path, OWN))
    shutil.rmtree(config["paths"]["run"])
    _, second = written(pod, config, tiny_model)
    assert first.directory != second.directory


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}\n{{ m['content' }}{% endfor %}", "is no Jinja template: line 2 has a syntax error"),
        ("Hello.", "does not use the variable `messages`"),
        (b"\xff\xfe{{ messages }}", "is not UTF-8 text"),
        ("{{ messages[-1]['content'] }}", "the template cannot be used for 60 rows"),
        ("{{ raise_exception('no') }}{{ messages }}", "the template cannot be used for 60 rows"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_its_field(
    pod: Pod, make_config: Any, base: Path, tmp_path: Path, text: str | bytes, message: str
) -> None:
    reported, _ = refused(pod, make_config(ROWS, data=own(tmp_path, text)), base)
    assert reported.startswith("spec.dataset.chatTemplate")
    assert message in reported


def test_marks_of_the_assistants_text_are_no_syntax_error(
    pod: Pod, make_config: Any, base: Path, tmp_path: Path
) -> None:
    marked = OWN.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{%- endgeneration %}")
    written(pod, make_config(ROWS, data=own(tmp_path, marked)), base)


def test_a_copy_that_is_gone_is_named(pod: Pod, make_config: Any, base: Path) -> None:
    run, _ = written(pod, make_config(ROWS, data={"chatTemplate": {"name": "ChatML"}}), base)
    (Path(run.paths.run) / FILE).unlink()
    with pytest.raises(BadInput, match="is gone from the workspace"):
        run_tokenizer(run)


def test_conversations_without_a_system_message_get_the_one_of_the_spec(
    pod: Pod, make_config: Any, tiny_model: Path
) -> None:
    system = {"role": "system", "content": "Name the order."}
    rows = [row if i % 2 else {"messages": [system, *row["messages"]]} for i, row in enumerate(ROWS)]
    _, prepared = written(pod, make_config(rows, data={"systemPrompt": "Name the mood."}), tiny_model)
    prompts = prepared.test["prompt"][:]
    assert {prompt.split("<|im_end|>")[0] for prompt in prompts} == {
        "<|im_start|>system\nName the mood.",
        "<|im_start|>system\nName the order.",
    }


def test_the_places_of_answers_move_with_the_system_message() -> None:
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    sample = Sample(messages=(user, answer, user, answer), completion_start=3, untrained=frozenset({1}))
    changed = with_system_prompt(sample, "s")
    assert (changed.messages[0]["content"], changed.completion_start, changed.untrained) == ("s", 4, frozenset({2}))
    developer = Sample(messages=({"role": "developer", "content": "d"}, user, answer), completion_start=2)
    assert with_system_prompt(developer, "s") == developer
    assert with_system_prompt(Sample(prompt="a", completion="b"), "s").messages == ()
