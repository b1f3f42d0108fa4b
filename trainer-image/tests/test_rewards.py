"""What an answer is worth: the functions of the list, code of the user's own, and a reward model."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset

from hone.contract.rewards import REWARDS, RewardFunction, RewardName, Rewards
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.pairs import ScoreEncoder
from hone_trainer.models.facts import load_tokenizer
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.verdicts import Preempted
from hone_trainer.rewards import code
from hone_trainer.rewards.checks import check_rewards, compared_by
from hone_trainer.rewards.functions import Rewarding, named
from hone_trainer.rewards.load import Reward
from hone_trainer.rewards.model import load_model
from hone_trainer.scores import rewards as scores
from hone_trainer.scores.rows import RowScores


def figure(name: RewardName, answer: Any, reference: Any = None, **settings: Any) -> float | None:
    function = RewardFunction(name=name, **settings)
    (score,) = named("spec.reward.functions[0]", function)(prompts=["?"], completions=[answer], reference=[reference])
    return score


@pytest.mark.parametrize(
    ("name", "answer", "reference", "worth"),
    [
        (RewardName.EXACT_MATCH, " Five\nSTARS. ", "five stars.", 1.0),
        (RewardName.EXACT_MATCH, "Five stars", "five stars.", 0.0),
        (RewardName.EXACT_MATCH, "b", ["a", "b"], 1.0),
        (RewardName.EXACT_MATCH, "", ["a"], 0.0),
        (RewardName.EXACT_MATCH, [{"role": "assistant", "content": "a"}], "a", 1.0),
        (RewardName.EXACT_MATCH, [{"role": "assistant", "content": None}], "a", 0.0),
        (RewardName.CONTAINS, "I say: Five  stars. Yes.", "five stars.", 1.0),
        (RewardName.CONTAINS, "Four stars.", ["five", "one"], 0.0),
        (RewardName.F1, "the lid is good", "The lid, is bad!", 0.75),
        (RewardName.F1, "good good", "good", 2 / 3),
        (RewardName.F1, "bad", ["good", "bad"], 1.0),
        (RewardName.F1, "...", "good", 0.0),
    ],
)
def test_a_function_gives_what_it_says(name: RewardName, answer: Any, reference: Any, worth: float) -> None:
    assert figure(name, answer, reference) == pytest.approx(worth)


def test_a_pattern_is_searched_for_anywhere() -> None:
    assert figure(RewardName.REGEX, "so: 42.", pattern=r"\d+") == 1.0
    assert figure(RewardName.REGEX, "so: none.", pattern=r"\d+") == 0.0


def test_every_function_of_the_list_can_be_called() -> None:
    assert {name for name in RewardName if figure(name, "a", "a", pattern="a") == 1.0} == set(REWARDS)


def test_what_compares_needs_references() -> None:
    pattern = RewardFunction(name=RewardName.REGEX, pattern="a")
    assert compared_by(Rewards(functions=[pattern])) is None
    assert compared_by(Rewards(functions=[pattern, RewardFunction(name=RewardName.F1)])) == "F1"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match=r"functions\[1\]\.pattern: `\(` is not a regular expression"):
        check_rewards(Rewards(functions=[RewardFunction(name="F1"), RewardFunction(name="Regex", pattern="(")]))


def own(tmp_path: Path, text: str, function: str = "reward") -> RewardFunction:
    path = tmp_path / "reward.py"
    path.write_text(text)
    return RewardFunction(mounted=str(path), file=str(path), source="rewards/brevity.py", function=function)


GOOD = "def reward(prompts, completions, reference=None, **kwargs):\n    return {}\n"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        pytest.param("def reward(:\n", "configMap", "rewards/brevity.py, line 1 is not valid Python", id="no Python"),
        pytest.param("def grade(**kwargs): ...\n", "function", "no function `reward`; it defines `grade`", id="other"),
        pytest.param("async def reward(**kwargs): ...\n", "function", "asynchronous", id="asynchronous"),
        pytest.param("def reward(completions): ...\n", "function", "does not accept `", id="no keywords"),
        pytest.param(
            "def reward(prompts, completion_ids, **kwargs): ...\n",
            "function",
            "`reward` requires `completion_ids`, but is called with prompts, completions, reference, by keyword",
            id="only in training",
        ),
        pytest.param(
            "def reward(*, completions, trainer_state, **kwargs): ...\n",
            "function",
            "requires `trainer_state`",
            id="a keyword",
        ),
        pytest.param("def reward(prompts, /, **kwargs): ...\n", "function", "requires `prompts`", id="no keyword"),
        pytest.param("\0", "configMap", "is not valid Python", id="no text"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_running_it(
    tmp_path: Path, text: str, field: str, message: str
) -> None:
    with pytest.raises(BadInput) as error:
        check_rewards(Rewards(functions=[own(tmp_path, text)]))
    assert error.value.field == f"spec.reward.functions[0].{field}"
    assert message in error.value.message


def test_parameters_of_its_own_may_have_defaults(tmp_path: Path) -> None:
    text = "def reward(completions, limit=3, *, completion_ids=None, **kwargs): ...\n"
    check_rewards(Rewards(functions=[own(tmp_path, text)]))


def test_a_file_that_is_checked_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    check_rewards(Rewards(functions=[own(tmp_path, f"open({str(mark)!r}, 'w')\n" + GOOD.format("[1.0]"))]))
    assert not mark.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no a/b"):
        check_rewards(Rewards(functions=[RewardFunction(mounted=str(tmp_path / "none"), source="a/b")]))


def call(tmp_path: Path, body: str) -> list[float | None]:
    reward = code.load_function("spec.reward.functions[0]", own(tmp_path, GOOD.format(body)))
    more = {"trainer_state": object(), "completion_ids": [[1], [2, 3]]}
    return reward(prompts=["p", "q"], completions=["a", "bb"], reference=["a", None], **more)


def test_own_code_sees_prompts_answers_and_references(tmp_path: Path) -> None:
    body = "[len(c) if r else None for c, r in zip(completions, reference)]"
    assert call(tmp_path, body) == [1.0, None]


def test_own_code_gets_nothing_that_finish_has_not(tmp_path: Path) -> None:
    assert call(tmp_path, "[len(kwargs)] * 2") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("[1.0]", "returned 1 numbers for 2 answers", id="too few"),
        pytest.param(
            "[1.0, float('nan')]", "returned nan, not a finite number; for a prompt of 1 char", id="not a number"
        ),
        pytest.param("[1.0, float('inf')]", "returned inf, not a finite number", id="infinite"),
        pytest.param("[1.0, '2']", "returned a str, not a finite number", id="a string"),
        pytest.param("[1.0, [2]]", "returned a list, not a finite number", id="a list"),
        pytest.param("1.0", "returned a float, not a list of numbers", id="one number"),
        pytest.param(
            "[1.0, 10**400]",
            "returned a int, not a finite number; for a prompt of 1 characters",
            id="too large a number",
        ),
        pytest.param(
            "(1 / (2 - len(c)) for c in completions)",
            "failed: ZeroDivisionError in line 2; for a prompt of 1 characters and an answer of 2",
            id="a generator that fails",
        ),
        pytest.param(
            "[exit(0) if len(c) == 2 else 0 for c in completions]",
            "failed: SystemExit in line 2; for a prompt of 1 characters and an answer of 2",
            id="an exit",
        ),
        pytest.param(
            "[1 / (2 - len(c)) for c in completions]",
            "failed: ZeroDivisionError in line 2; for a prompt of 1 characters and an answer of 2",
            id="an exception in a row",
        ),
    ],
)
def test_own_code_that_fails_is_told_with_the_answer(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        call(tmp_path, body)
    assert error.value.field == "spec.reward.functions[0].configMap"
    assert "rewards/brevity.py: `reward`" in error.value.message
    assert message in error.value.message


def test_own_code_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded: ModuleNotFoundError: No module named 'nowhere' in line 1"):
        code.load_function("spec.reward.functions[0]", own(tmp_path, "import nowhere\n" + GOOD.format("[]")))


def test_own_code_that_exits_while_it_is_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded: SystemExit: 0 in line 1"):
        code.load_function("spec.reward.functions[0]", own(tmp_path, "raise SystemExit(0)\n" + GOOD.format("[]")))


def test_a_pod_that_is_stopped_meanwhile_is_no_fault_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    function = RewardFunction(file=str(path), source="rewards/a.py", function="reward")
    stop = "from hone_trainer.protocol.verdicts import Preempted\n"
    path.write_text(stop + "def reward(**kwargs):\n    raise Preempted('stopped')\n")
    with pytest.raises(Preempted):
        code.load_function("spec.reward.functions[0]", function)(prompts=["p"], completions=["a"])


def test_a_gpu_without_room_is_no_fault_of_the_code(tmp_path: Path) -> None:
    """Its verdict is the memory fallback's business, not the user's."""
    import torch

    text = "import torch\n\ndef reward(**_):\n    raise torch.OutOfMemoryError('CUDA out of memory')\n"
    with pytest.raises(torch.OutOfMemoryError):
        code.load_function("f", own(tmp_path, text))(prompts=["p"], completions=["a"])


def test_the_answer_that_fails_is_looked_for_within_the_limit_of_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "LIMIT_SECONDS", 0.4)
    calls = tmp_path / "calls"
    text = (
        f"import time\n\ndef reward(completions, **_):\n    open({str(calls)!r}, 'a').write('x')\n"
        "    if len(completions) > 1:\n        raise ValueError('two')\n    time.sleep(0.15)\n    return [0.0]\n"
    )
    with pytest.raises(BadInput, match=r"ValueError in line 6$"):
        code.load_function("f", own(tmp_path, text))(prompts=["p"] * 50, completions=["a"] * 50)
    assert len(calls.read_text()) <= 1 + 3


def test_own_code_is_a_module_like_any_other(tmp_path: Path) -> None:
    """Dataclasses, for one, look their module up by its name."""
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n\n"
        "@dataclass\nclass Rule:\n    most: ClassVar[int] = 3\n\n" + GOOD.format("[Rule.most for _ in completions]")
    )
    assert code.load_function("f", own(tmp_path, text))(prompts=["p"], completions=["a"]) == [3.0]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "text"])
def test_a_reward_model_scores_what_it_was_trained_on(tmp_path: Path, chat: bool) -> None:
    """Each answer alone, as the rows of objective Reward are encoded, gets the score that it gets among others."""
    import torch
    from transformers import AutoModelForSequenceClassification

    directory = tiny.make_reward_model(tmp_path / "scorer")
    words = [("apple", "n0"), ("bread chair", "n1 n2"), ("dance", "n3 n3 n3")]
    pairs = [
        ([{"role": "user", "content": p}], [{"role": "assistant", "content": a}]) if chat else (f"{p} ", a)
        for p, a in words
    ]
    reward = load_model(str(directory), rows=2, dtype=torch.float32)
    scores = reward(prompts=[p for p, _ in pairs], completions=[c for _, c in pairs])
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    encoder = ScoreEncoder(load_tokenizer(directory), chat=chat)
    for (prompt, completion), score in zip(pairs, scores, strict=True):
        other = [{"role": "assistant", "content": "house"}] if chat else "house"
        row = {"prompt": prompt, "chosen": completion, "rejected": other}
        ids = encoder.encode(to_sample(row, DataFormat.PREFERENCE)).chosen_ids
        with torch.inference_mode():
            assert score == pytest.approx(model(torch.tensor([ids])).logits.item(), abs=1e-5)


def with_template(tmp_path: Path, template: str) -> Rewarding:
    """A reward model whose chat template is another."""
    directory = tiny.make_reward_model(tmp_path / "scorer")
    tokenizer = load_tokenizer(directory)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return load_model(str(directory), rows=2, dtype=torch.float32)


def test_a_reward_model_scores_what_its_template_shows_of_an_answer(tmp_path: Path) -> None:
    """Such as R1's, which drops the thoughts: an answer may be cut before they end, or right there."""
    content = "message['content']"
    score = with_template(tmp_path, tiny.TEMPLATE.replace(f"{{{{ message['role'] }}}} {{{{ {content}",
                          f"{{{{ message['role'] }}}} {{{{ {content}.split('dance')[-1]"))  # fmt: skip
    answers = ["n1 dance", "", "n1 dance n2", "n2"]
    prompts = [[{"role": "user", "content": "apple"}]] * len(answers)
    values = score(prompts=prompts, completions=[[{"role": "assistant", "content": one}] for one in answers])
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert values[2] == pytest.approx(values[3], abs=1e-5)
    assert values[0] != pytest.approx(values[2], abs=1e-5)


def test_a_template_that_refuses_an_answer_is_told(tmp_path: Path) -> None:
    score = with_template(tmp_path, "{{ raise_exception('no assistants') }}")
    with pytest.raises(BadInput, match=r"^spec\.reward\.model: its chat template cannot be used: .*no assistants"):
        score(prompts=[[{"role": "user", "content": "a"}]], completions=[[{"role": "assistant", "content": "b"}]])


def test_own_code_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "LIMIT_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"it took longer than 0\.2 s"):
        call(tmp_path, "[0 for _ in iter(int, 1)]")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("swallowed", ["Exception", "BaseException"])
def test_code_that_catches_what_it_can_has_the_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swallowed: str
) -> None:
    monkeypatch.setattr(code, "LIMIT_SECONDS", 0.2)
    loop = (
        f"\n    try:\n        [0 for _ in iter(int, 1)]\n    except {swallowed}:\n        pass\n    return [1.0, 1.0]\n"
    )
    text = GOOD.format("").rstrip().removesuffix("return") + loop
    reward = code.load_function("spec.reward.functions[0]", own(tmp_path, text))
    with pytest.raises(BadInput, match=r"it took longer than 0\.2 s"):
        reward(prompts=["p", "q"], completions=["a", "bb"])


# What finish makes of them.


def test_a_call_of_finish_is_no_larger_than_one_of_training() -> None:
    sizes: list[int] = []

    def reward(prompts: list[str], completions: list[str], reference: list[Any]) -> list[float | None]:
        sizes.append(len(completions))
        return [
            float(prompt[1:] == answer[1:] == one[1:])
            for prompt, answer, one in zip(prompts, completions, reference, strict=True)
        ]

    rows = Dataset.from_list([{"written": f'"p{i}"', "references": f'["r{i}"]'} for i in range(100)])
    figures = scores.figures([Reward("a", 1.0, reward)] * 2, rows, [f"a{i}" for i in range(100)])
    assert figures.tolist() == [[1.0, 1.0]] * 100
    assert max(sizes) <= 64
    assert sum(sizes) == 200


def test_what_cannot_be_loaded_is_told_before_finish_scores_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "both", lambda *_: pytest.fail("the models were scored"))
    reward = Rewards(functions=[own(tmp_path, "import nowhere\n" + GOOD.format("[]"))])
    config = SimpleNamespace(reward=reward, paths=SimpleNamespace(reward_model=None))
    planned = SimpleNamespace(plan=SimpleNamespace(max_completion_length=3))
    with pytest.raises(BadInput, match="cannot be loaded"):
        scores.evaluate(config, planned, None, Dataset.from_list([{"prompt": "p"}]), tmp_path, None)


def test_each_row_has_a_figure_so_that_groups_of_rows_can_be_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_for_right(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return [float(answer == "right") for answer in completions]

    rows = Dataset.from_list([{"written": '"p"', "references": '["r"]', "prompt": "p", "reference": "r"}] * 3)
    base, tuned = RowScores([], ["wrong"] * 3), RowScores([], ["right", "wrong", "right"])
    monkeypatch.setattr(scores, "both", lambda *_: (base, tuned, rows))
    monkeypatch.setattr(scores, "load_rewards", lambda *_: [Reward("own", 2.0, one_for_right)])
    evaluation = SimpleNamespace(max_minutes=None)
    config, planned = (
        SimpleNamespace(evaluation=evaluation),
        SimpleNamespace(plan=SimpleNamespace(max_completion_length=3)),
    )
    evaluated = scores.evaluate(config, planned, None, rows, tmp_path, None)
    [figures] = evaluated.figures
    assert (figures.metric, figures.base.tolist(), figures.tuned.tolist()) == ("reward", [0.0] * 3, [2.0, 0.0, 2.0])
    assert evaluated.evaluation.scores[0].metric == figures.metric
