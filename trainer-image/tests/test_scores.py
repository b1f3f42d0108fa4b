"""Scores: intervals that hold what they promise, figures that do not depend on batches, the metric that leads."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from hone_trainer.data.prepared import load_prepared
from hone_trainer.models.inference import division
from hone_trainer.scores import batches
from hone_trainer.scores import rows as scoring
from hone_trainer.scores.compare import compare
from hone_trainer.scores.intervals import mean, paired_difference, proportion
from hone_trainer.scores.rows import RowScores, load_cached, save_cached, score_rows

# Intervals.


def hits(count: int, of: int) -> np.ndarray:
    """`count` hits, then misses."""
    return np.arange(of) < count


def test_a_proportions_interval_is_wilsons() -> None:
    # By hand, from the score equation: p (1 - p) / n = ((p - p0) / z)^2 solved for p0.
    interval = proportion(hits(8, 10))
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (0.4902, 0.9433)


def test_no_hit_at_all_still_has_a_width() -> None:
    interval = proportion(hits(0, 24))
    assert interval.lower == interval.value == 0.0
    assert 0.13 < interval.upper < 0.14
    assert proportion(hits(24, 24)).lower > 0.86


def test_a_means_interval_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = mean(values)
    error = values.std() / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.lower == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.upper == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert mean(values) == interval, "the same figures give the same interval"


def test_pairing_tells_a_small_steady_gain_from_the_rows_own_spread() -> None:
    chance = np.random.default_rng(2)
    base = chance.normal(3.0, 2.0, size=200)
    gain = chance.normal(0.05, 0.02, size=200)
    assert mean(gain).lower > 0.04
    unpaired = mean(base).upper - mean(base).lower
    assert unpaired > 10 * (mean(gain).upper - mean(gain).lower)


def test_a_difference_without_any_difference_straddles_zero() -> None:
    interval = paired_difference(hits(10, 50), hits(10, 50))
    assert interval.value == 0.0
    assert interval.lower < 0 < interval.upper
    assert interval.upper - interval.lower < 0.2, "all rows agree: narrower than of two separate samples"


def test_swapping_the_models_mirrors_the_difference() -> None:
    base, tuned = hits(20, 60), np.roll(hits(35, 60), 10)
    there, back = paired_difference(base, tuned), paired_difference(tuned, base)
    assert there.value == pytest.approx(-back.value)
    assert there.lower == pytest.approx(-back.upper)


@pytest.mark.parametrize(("base_rate", "gain"), [(0.1, 0.0), (0.5, 0.2), (0.0, 0.9)])
def test_the_paired_interval_holds_the_truth_about_19_times_in_20(base_rate: float, gain: float) -> None:
    chance = np.random.default_rng(3)
    held, repeats = 0, 1000
    for _ in range(repeats):
        base = chance.random(60) < base_rate
        # A row that the base gets wrong is corrected with such a chance that the truth is `gain`.
        tuned = base | (chance.random(60) < gain / (1 - base_rate))
        interval = paired_difference(base, tuned)
        held += interval.lower <= gain <= interval.upper
    assert 0.93 <= held / repeats <= 1.0


# The leading metric.


def test_short_references_are_compared_word_for_word() -> None:
    base = RowScores(losses=[2.0, 2.0, 2.0], answers=["no", "maybe", " yes \n"])
    tuned = RowScores(losses=[1.0, 1.5, 2.5], answers=["yes", "no", "yes"])
    comparison, notes, figures = compare(base, tuned, ["yes", "no", "yes"], [1, 1, 1], 64)
    assert [score.metric for score in comparison.scores] == ["exactMatch", "loss"]
    match, loss = comparison.scores
    assert (match.base.value, match.tuned.value) == (pytest.approx(1 / 3), 1.0)
    assert match.improvement.value == pytest.approx(2 / 3)
    assert loss.improvement.value == pytest.approx((1.0 + 0.5 - 0.5) / 3), "a lower loss is an improvement"
    assert not loss.higher_is_better
    assert "exactMatch is the main metric" in notes[0] and comparison.why == notes[0]
    assert [each.metric for each in figures] == ["exactMatch", "loss"]
    assert figures[0].tuned.tolist() == [1.0, 1.0, 1.0]


def test_no_test_rows_are_said_to_be_none() -> None:
    none = RowScores(losses=[], answers=[])
    comparison, notes, _ = compare(none, none, [], [], 64)
    assert comparison.scores == []
    assert "no rows" in notes[0]


# Figures per row.


@pytest.fixture(scope="module")
def model_and_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, object, Dataset]:
    """A tiny model, its tokenizer and test rows of several lengths."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    root = tmp_path_factory.mktemp("scores")
    model = tiny.make_model(root / "model", seed=3)
    prepared = load_prepared(tiny.make_prepared(root / "prepared", model, rows=4, test_rows=12))
    return LlamaForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model), prepared.test


def test_figures_are_those_of_each_row_alone(model_and_rows: tuple) -> None:
    model, tokenizer, rows = model_and_rows
    assert len({len(ids) for ids in rows["input_ids"]}) > 1, "rows of one length would need no padding"
    figures = score_rows(model, tokenizer, rows, 4, "test")
    for index, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            made_ids = model.generate(torch.tensor([row["prompt_ids"]]), do_sample=False, max_new_tokens=4)[0]
        losses = [
            torch.nn.functional.cross_entropy(logits[place], torch.tensor(label)).item()
            for place, label in enumerate(row["labels"][1:])
            if label != -100
        ]
        assert figures.losses[index] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        answer = tokenizer.decode(made_ids[len(row["prompt_ids"]) :], skip_special_tokens=True)
        assert figures.answers[index] == answer


def test_a_small_memory_bound_only_makes_smaller_batches(
    model_and_rows: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, rows = model_and_rows
    at_once = score_rows(model, tokenizer, rows, 2, "test")
    monkeypatch.setattr(batches, "_CPU_BYTES", 1)
    one_by_one = score_rows(model, tokenizer, rows, 2, "test")
    assert one_by_one.losses == pytest.approx(at_once.losses, abs=1e-5)
    assert one_by_one.answers == at_once.answers


@pytest.mark.slow
def test_a_batch_that_runs_out_of_memory_is_halved_until_it_fits(
    model_and_rows: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, rows = model_and_rows
    at_once = score_rows(model, tokenizer, rows, 2, "test")
    sizes: list[int] = []
    original = model.model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", forward)
    halved = score_rows(model, tokenizer, rows, 2, "test")
    assert halved.losses == pytest.approx(at_once.losses, abs=1e-5)
    assert halved.answers == at_once.answers
    assert sizes[:4] == [12, 6, 3, 3], "and those after it begin with fewer rows"
    assert [size for size in sizes if size > 3] == [12, 6, 12, 6], "losses, then answers"


@pytest.mark.slow
def test_a_row_that_does_not_fit_alone_and_other_errors_are_raised(model_and_rows: tuple) -> None:
    model = model_and_rows[0]
    tried: list[list[int]] = []

    def score(error: Exception) -> Any:
        def fail(batch: list[int]) -> None:
            tried.append(batch)
            raise error

        return fail

    with pytest.raises(torch.OutOfMemoryError):
        batches.in_batches(model, score(torch.OutOfMemoryError("CUDA out of memory.")), [3, 1, 2], 0, "test")
    assert tried == [[1, 2, 0], [1]]
    with pytest.raises(RuntimeError, match="shape"):
        batches.in_batches(model, score(RuntimeError("shape mismatch")), [3, 1, 2], 0, "test")


def test_long_prompts_with_long_answers_are_generated_in_small_batches(
    model_and_rows: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and values of all layers are kept for each token of prompt and answer, and count against the bound."""
    model = model_and_rows[0]
    one = batches.row_bytes(model, 100)(10)
    cached = 2 * model.config.num_hidden_layers * model.config.num_key_value_heads * model.config.head_dim
    assert batches.cached_values(model) == cached
    assert one - batches.row_bytes(model)(10) == 110 * cached * 4
    monkeypatch.setattr(batches, "_CPU_BYTES", 4 * one)
    sizes: list[int] = []
    batches.in_batches(model, lambda batch: sizes.append(len(batch)), [10] * 16, 100, "test")
    assert sizes == [4] * 4


def test_a_model_that_is_divided_gives_the_same_figures(
    model_and_rows: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As among GPUs and the host's memory: here, some layers stay on disk, and are loaded when their turn comes."""
    from transformers import LlamaForCausalLM

    whole, tokenizer, rows = model_and_rows
    whole.save_pretrained(tmp_path / "model")
    parts = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    others = {f"model.layers.{n}": "disk" for n in range(1, whole.config.num_hidden_layers)}
    divided = LlamaForCausalLM.from_pretrained(
        tmp_path / "model", device_map={**parts, **others, "lm_head": "cpu"}, offload_folder=tmp_path / "offloaded"
    )
    assert "disk" in divided.hf_device_map.values()
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_: pytest.fail("it was moved as a whole"))
    figures = score_rows(divided, tokenizer, rows, 3, "divided")
    monkeypatch.undo()
    expected = score_rows(whole, tokenizer, rows, 3, "whole")
    assert figures.losses == pytest.approx(expected.losses, abs=1e-5)
    assert figures.answers == expected.answers


def test_weights_are_divided_among_all_gpus_with_room_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert division() == {}, "none on the CPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((1000, 800)[device], 2000))
    monkeypatch.setattr("hone_trainer.protocol.host.memory_limit", lambda: 5000)
    assert division() == {"device_map": "auto", "max_memory": {0: 850, 1: 680, "cpu": 5000}}


def test_losses_never_hold_the_logits_of_all_tokens(model_and_rows: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, rows = model_and_rows
    monkeypatch.setattr(model.lm_head, "forward", lambda *_: pytest.fail("the head was applied to all tokens"))
    totals = scoring.likelihoods(model, rows["input_ids"][:], rows["labels"][:], 0, "test")
    assert len(totals) == len(rows) and all(total < 0 for total, _ in totals)
    assert "forward" not in model.__dict__, "the model is left as it was"


def test_a_prompt_that_fills_the_context_has_no_answer(model_and_rows: tuple) -> None:
    model, tokenizer, rows = model_and_rows
    longest = model.config.max_position_embeddings
    long = rows.select([0, 1]).map(lambda row, index: {"prompt_ids": [5] * longest if index else row["prompt_ids"]},
                                   with_indices=True)  # fmt: skip
    figures = score_rows(model, tokenizer, long, 4, "test")
    assert figures.answers[1] == ""
    assert figures.answers[0] == score_rows(model, tokenizer, rows.select([0]), 4, "test").answers[0]


def test_a_config_that_names_no_context_is_one_of_2048_tokens(model_and_rows: tuple) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=22, hidden_size=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    assert not hasattr(config, "max_position_embeddings")
    with torch.inference_mode():
        answers = scoring.answer_ids(
            BloomForCausalLM(config).eval(), model_and_rows[1], [[5], [5] * 2048], 2, 0, "test"
        )
    assert [bool(ids) for ids in answers] == [True, False]


def test_scores_are_found_again_unless_broken(tmp_path: Path) -> None:
    path = tmp_path / "scores" / "a.json"
    key = {"model": "sha256:1", "rows": 1}
    assert load_cached(path, key) is None
    save_cached(path, key, RowScores(losses=[1.5], answers=["yes"]))
    assert load_cached(path, key) == RowScores(losses=[1.5], answers=["yes"])
    path.write_text('{"losses": [1.5')
    assert load_cached(path, key) is None


def test_cached_scores_that_were_changed_or_are_of_another_model_are_not_believed(tmp_path: Path) -> None:
    path, key, scores = tmp_path / "a.json", {"model": "sha256:1"}, RowScores(losses=[1.5], answers=["yes"])
    save_cached(path, key, scores)
    written = path.read_text()
    for attack in (
        written.replace("1.5", "9.5"),  # a worse base makes the tuned model look better
        written.replace('"yes"', '"no"'),
        '{"losses": [9.5], "answers": ["no"]}',  # as older releases wrote it
        "[]",
    ):
        assert attack != written
        path.write_text(attack)
        assert load_cached(path, key) is None, attack
    save_cached(path, {"model": "sha256:2"}, scores)
    assert load_cached(path, key) is None, "the scores of another model under this one's name"
