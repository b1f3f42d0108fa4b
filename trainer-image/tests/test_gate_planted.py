"""Runs of which is known how good they are, trained and scored right here, and what gates decide about them."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from in_process import train_here

from hone.api.gate import Gate
from hone.contract.benchmarks import Benchmark
from hone.contract.methods import MethodType
from hone.contract.objects import ClaimPath, ConfigMapKey
from hone.contract.report import Report
from hone.contract.results import EvaluationSummary, Score
from hone.contract.runconfig import Attempt, RunConfig
from hone.contract.settings import Retention
from hone.core.finetunejob.policies.gate import decide
from hone_trainer import finish
from hone_trainer.data.general import Question
from hone_trainer.data.groups import EVALUATION_GROUP
from hone_trainer.scores.intervals import mean, paired_difference
from hone_trainer.scores.rows import RowScores

pytestmark = pytest.mark.train

TEST_ROWS = 240
SHUFFLED = "shuffled"


def shuffle_answers(prepared: Path, words: set[str]) -> None:
    """Give the training rows of some words the answers of others of them, and test rows a group."""
    from datasets import Dataset, load_from_disk
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared.parents[2] / "model")
    chance, ids = random.Random(0), {tokenizer.convert_tokens_to_ids(word) for word in words}
    numbers = tokenizer.convert_tokens_to_ids(tiny.NUMBERS)

    def shuffled(row: dict[str, Any]) -> dict[str, Any]:
        place = next(i for i, label in enumerate(row["labels"]) if label != -100)
        if row["input_ids"][place - 2] not in ids:
            return row
        number = chance.choice(numbers)
        changed = {name: [*row[name]] for name in ("input_ids", "labels")}
        for column in changed.values():
            column[place] = number
        return {**row, **changed}

    for name in ("train", "test"):
        rows = [*load_from_disk(prepared / name)]
        if name == "train":
            rows = [shuffled(row) for row in rows]
        else:
            last = [row["prompt"].split()[-2] for row in rows]
            rows = [
                {**row, EVALUATION_GROUP: SHUFFLED if word in words else "right"}
                for row, word in zip(rows, last, strict=True)
            ]
        shutil.rmtree(prepared / name)
        Dataset.from_list(rows).save_to_disk(str(prepared / name), num_shards=1)


def run(root: Path, words: set[str], patch: pytest.MonkeyPatch, **options: Any) -> RunConfig:
    """A finished training on answers that are shuffled for some words, with its artifact and scores."""
    shared = root / "shared"
    tiny.make_model(shared / "model", hidden=64)
    tiny.make_prepared(shared / "workspace/prepared/tiny", shared / "model", test_rows=TEST_ROWS)
    shuffle_answers(shared / "workspace/prepared/tiny", words)
    settings: dict[str, Any] = {"steps": 140, "every": 140, "keep": 1, "micro_batch": 32}
    config = tiny.make_run(root, shared=shared, method=MethodType.FULL, **{**settings, **options})
    train_here(root, patch)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunConfig]]:
    """Runs on right answers, on shuffled ones, and on answers that are shuffled for the last two words."""
    planted: dict[str, set[str]] = {"right": set(), "shuffled": {*tiny.WORDS}, "unfair": {*tiny.WORDS[-2:]}}
    with tiny.only_rank(), pytest.MonkeyPatch.context() as patch:
        yield {name: run(tmp_path_factory.mktemp(name), words, patch) for name, words in planted.items()}


def scored(config: RunConfig, patch: pytest.MonkeyPatch, **evaluation: Any) -> EvaluationSummary:
    """The scores of a run by other settings of its evaluation."""
    root = Path(config.paths.output).parent
    patch.setenv("HONE_RUN_CONFIG", str(root / "run.json"))
    patch.setenv("HONE_TERMINATION_LOG", str(root / "term"))
    settings = config.evaluation.model_copy(update=evaluation)
    patch.setenv("HONE_ATTEMPT", Attempt(number=1, evaluation=settings).to_json())
    assert finish.main() == 0, (root / "term").read_text()
    report = Report.model_validate_json((Path(config.paths.output) / "report.json").read_text())
    assert report.evaluation is not None
    return report.evaluation


def decision(evaluation: EvaluationSummary, *rules: dict[str, Any]) -> str:
    decided = decide(Gate.from_dict({"rules": list(rules)}), evaluation)
    return f"{decided.decision}: {decided.message}"


BETTER = ({"metric": "exactMatch", "min": 0.9}, {"metric": "exactMatch", "minImprovement": 0.5})


def test_a_model_that_is_truly_better_passes(runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    assert decision(scored(runs["right"], monkeypatch), *BETTER).startswith("Pass: all 2 rules pass")


def test_a_model_of_shuffled_answers_fails(runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    assert decision(scored(runs["shuffled"], monkeypatch), *BETTER).startswith("Fail: Fail at confidence 0.95")


def test_thirty_rows_do_not_show_what_all_of_them_show(
    runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 30 of 30 right answers the interval begins at 0.89."""
    few = scored(runs["right"], monkeypatch, max_samples=30)
    rule = {"metric": "exactMatch", "min": 0.95}
    assert few.scores[0].tuned.value == 1.0, "the figure alone passes"
    assert decision(few, rule).startswith("Inconclusive: ") and "30 rows; about" in decision(few, rule)
    assert decision(scored(runs["right"], monkeypatch), rule).startswith("Pass")


def test_a_group_that_is_served_badly_fails_although_the_whole_passes(
    runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, each = {"metric": "exactMatch", "min": 0.5}, {"of": "WorstGroup", "min": 0.5}
    unfair = scored(runs["unfair"], monkeypatch, group_by="team")
    assert unfair.groups and unfair.groups.groups[0].name == SHUFFLED
    assert decision(unfair, whole).startswith("Pass")
    assert decision(unfair, each).startswith("Fail") and "exactMatch of the worst group" in decision(unfair, each)
    assert decision(scored(runs["right"], monkeypatch, group_by="team"), whole, each).startswith("Pass")


def stored_base(config: RunConfig) -> list[RowScores]:
    """The base's figures in the cache."""
    files = (Path(config.paths.workspace) / "scores").glob("*.json")
    return [RowScores(**json.loads(file.read_text())["scores"]) for file in files]


@pytest.mark.parametrize("rows", [50, 200])
def test_of_two_thousand_comparisons_of_a_model_with_itself_few_pass(
    rows: int, runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A/A: both models' rows are drawn from the stored losses of one, and from hits made of them."""
    scored(runs["right"], monkeypatch)
    (stored,) = (each for each in stored_base(runs["right"]) if len(each.losses) == TEST_ROWS)
    losses, chance, comparisons = np.array(stored.losses), np.random.default_rng(rows), 2_000
    middle, passed = np.median(losses), {"loss": 0, "hits": 0}
    monkeypatch.setattr("hone_trainer.scores.intervals.RESAMPLES", 1_000)
    gate = Gate.from_dict({"rules": [{"minImprovement": 0}]})
    for _ in range(comparisons):
        one, other = chance.choice(losses, rows), chance.choice(losses, rows)
        differences = {"loss": mean(one - other), "hits": paired_difference(one < middle, other < middle)}
        for name, difference in differences.items():
            both = Score(
                metric=name,
                higher_is_better=True,
                samples=rows,
                base=difference,
                tuned=difference,
                improvement=difference,
            )
            passed[name] += decide(gate, EvaluationSummary(scores=[both])).decision == "Pass"
    shares = {name: count / comparisons for name, count in passed.items()}
    print(shares)
    # The stated rate, and what 2,000 comparisons may show of it by chance.
    assert max(shares.values()) <= 0.025 + 2 * (0.025 * 0.975 / comparisons) ** 0.5, shares
    assert min(shares.values()) > 0.01, "a gate that never passes would show nothing"


def reverse(prepared: Path, model: Path) -> None:
    """Prepared data of another task: the word of a number."""
    from datasets import Dataset, load_from_disk
    from transformers import AutoTokenizer

    tiny.make_prepared(prepared, model, test_rows=40)
    tokenizer, chance = AutoTokenizer.from_pretrained(model), random.Random(3)
    for name in ("train", "validation", "test"):
        rows = []
        for row in load_from_disk(prepared / name):
            word, number = chance.choice([*zip(tiny.WORDS, tiny.NUMBERS, strict=True)])
            prompt = f"user {number} assistant "
            ids, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{word} <eos>"))
            own = {"input_ids": ids + answer, "labels": [-100] * len(ids) + answer, "length": len(ids + answer)}
            rows.append(
                row | own | ({"prompt_ids": ids, "reference": word, "prompt": prompt} if name == "test" else {})
            )
        shutil.rmtree(prepared / name)
        Dataset.from_list(rows).save_to_disk(str(prepared / name), num_shards=1)


def words_and_numbers() -> list[Question]:
    """What the base model of the next test can do."""
    chance = random.Random(5)
    indices = [chance.randrange(len(tiny.WORDS)) for _ in range(90)]
    texts = [" ".join([*chance.choices(tiny.WORDS, k=chance.randrange(3)), tiny.WORDS[index]]) for index in indices]
    return [Question("numbers", text, tiny.NUMBERS[index]) for text, index in zip(texts, indices, strict=True)]


def test_scores_of_the_test_rows_outlive_questions_that_cannot_be_scored(
    runs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr("hone_trainer.scores.retention.evaluate", fail)
    evaluation = scored(runs["right"], monkeypatch, retention=Retention())
    assert evaluation.scores[0].tuned.value > 0.9 and evaluation.retention is None
    assert evaluation.problems is not None
    assert evaluation.problems[0].startswith("spec.evaluation.retention was not scored: ")
    assert "CUDA error" in evaluation.problems[0]
    assert decision(evaluation, {"of": "Retention", "maxRegression": 0.5}).startswith("Inconclusive")


def test_benchmarks_are_scored_and_one_that_cannot_be_costs_no_other(
    runs: dict[str, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.contract.benchmarks.DIRECTORY", str(tmp_path))
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    for directory in (known, unknown):
        directory.mkdir()
    pairs = [*zip(tiny.WORDS, tiny.NUMBERS, strict=True)]
    questions = [{"question": f"user {word} assistant ", "completion": number} for word, number in pairs * 6]
    (known / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*questions, {"completion": "7"}]))
    (unknown / "rows.jsonl").write_text('{"text": "no question"}\n')
    benchmarks = [
        Benchmark(name="unknown", config_map=ConfigMapKey(name="b", key="rows.jsonl")),
        Benchmark(
            name="known",
            claim=ClaimPath(name="questions", path="rows.jsonl"),
            columns={"prompt": "question"},
            max_samples=len(questions) - 10,
        ),
    ]
    evaluation = scored(runs["right"], monkeypatch, benchmarks=benchmarks)
    assert evaluation.scores[0].tuned.value > 0.9
    (summary,) = evaluation.benchmarks or []
    first = summary.scores[0]
    assert (summary.name, first.metric, first.samples) == ("known", "exactMatch", len(questions) - 10)
    assert first.tuned.value > 0.9 and first.base.value < 0.5
    (problem,) = evaluation.problems or []
    assert problem.startswith("spec.evaluation.benchmarks[0] was not scored: BadInput: ")
    assert "a column is missing" in problem
    bar = {"of": "Benchmark", "minImprovement": 0.3}
    assert decision(evaluation, {**bar, "benchmark": "known"}).startswith("Pass")
    assert decision(evaluation, {**bar, "benchmark": "unknown"}).startswith("Inconclusive")
    shuffled = scored(runs["shuffled"], monkeypatch, benchmarks=benchmarks[1:])
    assert decision(shuffled, {**bar, "benchmark": "known"}).startswith("Fail")


def test_what_was_trained_hard_at_a_high_rate_fails_retention(
    runs: dict[str, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both learn another task than that of their base; one gently, the other until the first task is forgotten."""
    scored(runs["right"], monkeypatch)
    shared = tmp_path / "shared"
    shutil.copytree(Path(runs["right"].paths.output) / "artifact", shared / "model")
    reverse(shared / "workspace/prepared/tiny", shared / "model")
    monkeypatch.setattr("hone_trainer.scores.retention.questions", words_and_numbers)
    decisions = {}
    for name, steps, rate in (("gentle", 8, 1e-4), ("hard", 60, 2e-2)):
        root = tmp_path / name
        config = tiny.make_run(
            root, shared=shared, method=MethodType.FULL, steps=steps, every=steps, micro_batch=32, learning_rate=rate
        )
        train_here(root, monkeypatch)
        evaluation = scored(config, monkeypatch, retention=Retention())
        assert evaluation.retention and [*evaluation.retention.skills] == ["numbers"]
        decisions[name] = decision(evaluation, {"of": "Retention", "maxRegression": 0.5})
    assert decisions["gentle"].startswith("Pass"), decisions
    assert decisions["hard"].startswith("Fail") and "loss of retention regression <= 0.5" in decisions["hard"]
