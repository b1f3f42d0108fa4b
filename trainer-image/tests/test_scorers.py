"""Scorers of the user's own: checked in prepare, run on the answers of both models in finish."""

from pathlib import Path

import pytest

from hone.contract.objects import ConfigMapKey
from hone.contract.results import EvaluationSummary
from hone.contract.scorers import FILE, Scorer
from hone.contract.settings import Evaluation
from hone_trainer import finish
from hone_trainer.protocol.errors import BadInput
from hone_trainer.scores.evaluated import Pair
from hone_trainer.scores.scorers import ROWS_AT_ONCE, check, measure

PAIRS = [Pair(f"question {row}", "yes", "no, never" if row % 2 else "yes", "yes") for row in range(ROWS_AT_ONCE + 9)]
BREVITY = """
def score(prompts, completions, reference=None, **kwargs):
    assert len(prompts) == len(reference) == len(completions)
    return [1.0 / len(completion.split()) for completion in completions]
"""


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scorers are mounted."""
    monkeypatch.setattr("hone.contract.scorers.DIRECTORY", str(tmp_path))
    return tmp_path


def scorer(mounted: Path, code: str, name: str = "brevity", **fields: bool) -> Scorer:
    (mounted / name).mkdir()
    (mounted / name / FILE).write_text(code)
    return Scorer(name=name, config_map=ConfigMapKey(name="scorers", key="code.py"), **fields)


def test_both_models_are_measured_row_by_row(mounted: Path) -> None:
    figure = measure(scorer(mounted, BREVITY), 0, PAIRS)
    assert figure is not None
    assert (figure.metric, figure.samples, figure.tuned.value) == ("brevity", len(PAIRS), 1.0)
    assert figure.base.value == pytest.approx(sum(1 / len(pair.base.split()) for pair in PAIRS) / len(PAIRS))
    assert figure.improvement.lower > 0


def test_each_answer_is_given_with_its_prompt_and_reference(mounted: Path) -> None:
    code = """
def score(prompts, completions, reference, **kwargs):
    rows = zip(prompts, completions, reference)
    return [float(prompt[1:] == completion[1:] == right[1:]) for prompt, completion, right in rows]
"""
    pairs = [Pair(f"p{row}", f"r{row}", f"b{row}", f"t{row}") for row in range(ROWS_AT_ONCE + 9)]
    figure = measure(scorer(mounted, code), 0, pairs)
    assert figure is not None and (figure.base.value, figure.tuned.value) == (1.0, 1.0)


def test_less_may_be_better(mounted: Path) -> None:
    figure = measure(scorer(mounted, BREVITY, higher_is_better=False), 0, PAIRS)
    assert figure is not None and figure.improvement.upper < 0


def test_rows_may_be_left_out(mounted: Path) -> None:
    code = "def score(completions, **kwargs):\n    return [None if i % 3 else 1.0 for i, _ in enumerate(completions)]\n"
    figure = measure(scorer(mounted, code), 0, PAIRS)
    assert figure is not None and figure.samples == 11 + 3


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def score(prompts:\n", "is not valid Python"),
        ("def other(**kwargs):\n    return []\n", "defines no function `score`"),
        ("def score(prompts, answers, **kwargs):\n    return []\n", "requires `answers`"),
    ],
)
def test_code_that_cannot_be_called_is_refused_before_it_is_run(code: str, words: str, mounted: Path) -> None:
    evaluation = Evaluation(scorers=[scorer(mounted, code)])
    with pytest.raises(BadInput) as refused:
        check(evaluation)
    assert refused.value.field.startswith("spec.evaluation.scorers[0].") and words in refused.value.message


@pytest.mark.parametrize("code", ["1 / 0", "return ['much']", "return [1.0]", "import os; os.abort"])
def test_a_scorer_that_fails_costs_no_other_score(code: str, mounted: Path) -> None:
    broken = scorer(mounted, f"def score(completions, **kwargs):\n    {code}\n", "broken")
    evaluation = Evaluation(scorers=[broken, scorer(mounted, BREVITY)])
    summary = finish._with_scorers(evaluation, EvaluationSummary(scores=[]), PAIRS)
    assert [score.metric for score in summary.scores] == ["brevity"]
    (problem,) = summary.problems or []
    assert problem.startswith("spec.evaluation.scorers[0] was not scored: BadInput: ")
