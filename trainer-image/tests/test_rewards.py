"""What an answer is worth: the functions of the list, code of the user's own, and a reward model."""

import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from hone.contract.rewards import REWARDS, RewardFunction, RewardName, Rewards
from hone.contract.settings import DataFormat
from hone_trainer.data.formats import to_sample
from hone_trainer.data.pairs import ScoreEncoder
from hone_trainer.errors import BadInput
from hone_trainer.models import load_tokenizer
from hone_trainer.rewards import code
from hone_trainer.rewards.checks import check_rewards, compared_by
from hone_trainer.rewards.functions import named
from hone_trainer.rewards.model import load_model


def figure(name: RewardName, answer: Any, reference: Any = None, **settings: Any) -> float | None:
    function = RewardFunction(name=name, **settings)
    (found,) = named(function)(prompts=["?"], completions=[answer], reference=[reference])
    return found


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
    with pytest.raises(BadInput, match=r"functions\[1\]\.pattern: `\(` is no regular expression"):
        check_rewards(Rewards(functions=[RewardFunction(name="F1"), RewardFunction(name="Regex", pattern="(")]))


def own(tmp_path: Path, text: str, function: str = "reward") -> RewardFunction:
    path = tmp_path / "reward.py"
    path.write_text(text)
    return RewardFunction(file=str(path), source="rewards/brevity.py", function=function)


GOOD = "def reward(prompts, completions, reference=None, **kwargs):\n    return {}\n"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        pytest.param("def reward(:\n", "configMap", "rewards/brevity.py, line 1 is no Python", id="no Python"),
        pytest.param("def grade(**kwargs): ...\n", "function", "no function `reward`; it defines `grade`", id="other"),
        pytest.param("async def reward(**kwargs): ...\n", "function", "asynchronous", id="asynchronous"),
        pytest.param("def reward(completions): ...\n", "function", "takes no further keywords", id="no keywords"),
        pytest.param("\0", "configMap", "is no Python", id="no text"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_running_it(tmp_path: Path, text: str, field: str, said: str) -> None:
    with pytest.raises(BadInput) as error:
        check_rewards(Rewards(functions=[own(tmp_path, text)]))
    assert error.value.field == f"spec.reward.functions[0].{field}"
    assert said in error.value.message


def test_a_file_that_is_checked_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    check_rewards(Rewards(functions=[own(tmp_path, f"open({str(mark)!r}, 'w')\n" + GOOD.format("[1.0]"))]))
    assert not mark.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no a/b"):
        check_rewards(Rewards(functions=[RewardFunction(file=str(tmp_path / "none"), source="a/b")]))


def call(tmp_path: Path, body: str) -> list[float | None]:
    reward = code.loaded("spec.reward.functions[0]", own(tmp_path, GOOD.format(body)))
    return reward(prompts=["p", "q"], completions=["a", "bb"], reference=["a", None], trainer_state=object())


def test_own_code_sees_prompts_answers_and_references(tmp_path: Path) -> None:
    body = "[len(c) if r else None for c, r in zip(completions, reference)]"
    assert call(tmp_path, body) == [1.0, None]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param("[1.0]", "gave 1 figures for 2 answers", id="too few"),
        pytest.param("[1.0, float('nan')]", "gave nan, not a finite number; for the prompt 'q'", id="not a number"),
        pytest.param("[1.0, float('inf')]", "gave inf, not a finite number", id="infinite"),
        pytest.param("[1.0, '2']", "gave a str, not a finite number", id="a string"),
        pytest.param("[1.0, [2]]", "gave a list, not a finite number", id="a list"),
        pytest.param("1.0", "gave a float, not a list of numbers", id="one number"),
        pytest.param(
            "[1 / (2 - len(c)) for c in completions]",
            "failed: ZeroDivisionError: division by zero in line 2; for the prompt 'q' and the answer 'bb'",
            id="an exception in a row",
        ),
    ],
)
def test_own_code_that_fails_is_told_with_the_answer(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(BadInput) as error:
        call(tmp_path, body)
    assert error.value.field == "spec.reward.functions[0].configMap"
    assert "rewards/brevity.py: `reward`" in error.value.message
    assert said in error.value.message


def test_own_code_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded: ModuleNotFoundError: No module named 'nowhere' in line 1"):
        code.loaded("spec.reward.functions[0]", own(tmp_path, "import nowhere\n" + GOOD.format("[]")))


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
    scores = load_model(str(directory), rows=2)(prompts=[p for p, _ in pairs], completions=[c for _, c in pairs])
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    encoder = ScoreEncoder(load_tokenizer(directory), chat=chat)
    for (prompt, completion), score in zip(pairs, scores, strict=True):
        other = [{"role": "assistant", "content": "house"}] if chat else "house"
        row = {"prompt": prompt, "chosen": completion, "rejected": other}
        ids = encoder.encode(to_sample(row, DataFormat.PREFERENCE)).chosen_ids
        with torch.inference_mode():
            assert score == pytest.approx(model(torch.tensor([ids])).logits.item(), abs=1e-5)


def test_own_code_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "LIMIT_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"it took longer than 0\.2 s"):
        call(tmp_path, "[0 for _ in iter(int, 1)]")
    assert time.monotonic() - began < 30
