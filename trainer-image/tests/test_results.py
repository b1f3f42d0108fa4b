"""The termination message never exceeds what Kubernetes keeps, and loses what matters least first."""

import json
from typing import Any

import pytest

from hone.contract.exits import FailureClass
from hone.contract.plan import BadRows, DatasetSummary, MemoryEstimate, Plan, SourceRows
from hone.contract.results import MAX_TERMINATION_BYTES, StepResult
from hone.contract.verdict import Verdict
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.results import encode

WIDE = "文" * 512
"""Three bytes a character: what counts is bytes."""


def plan_with(reasons: dict[str, str], warnings: list[str]) -> Plan:
    return Plan(
        total_steps=100,
        epochs=3,
        learning_rate=2e-4,
        scheduler="Cosine",
        warmup_ratio=0.03,
        global_batch_size=16,
        micro_batch_size=4,
        gradient_accumulation_steps=4,
        sequence_length=512,
        weight_decay=0,
        max_grad_norm=1,
        world_size=1,
        zero_stage=0,
        precision="bfloat16",
        checkpoint_every_steps=10,
        parameters=1,
        trainable_parameters=1,
        memory=MemoryEstimate(
            weights_bytes=1,
            gradients_bytes=1,
            optimizer_bytes=1,
            activations_bytes=1,
            overhead_bytes=1,
            total_bytes=5,
        ),
        reasons=reasons,
        warnings=warnings,
    )


def dataset_with(example: str | None, bad_rows: list[BadRows]) -> DatasetSummary:
    return DatasetSummary(
        digest="sha256:" + "0" * 64,
        format="Messages",
        train_on="Assistant",
        train_rows=1,
        validation_rows=1,
        test_rows=1,
        bad_rows=bad_rows,
        example=example,
    )


def fullest(text: str) -> StepResult:
    bad = [BadRows(reason=text, count=1, first=text)] * 8
    source = SourceRows(name="n" * 63, format="UnpairedPreference", rows=9**9, bad_rows=9**9, train_rows=9**9)
    dataset = dataset_with(text * 2, bad).model_copy(update={"sources": [source] * 16})
    reasons = {f"{i:02}".ljust(64, "x"): text for i in range(32)}
    return StepResult(step="prepare", dataset=dataset, plan=plan_with(reasons, [text] * 16))


@pytest.mark.parametrize("text", ["x" * 512, WIDE, '"\\' * 256], ids=["ascii", "three bytes", "escapes"])
def test_the_fullest_result_fits_and_keeps_the_plan(text: str) -> None:
    data = encode(fullest(text))
    assert len(data) <= MAX_TERMINATION_BYTES
    result = StepResult.from_dict(json.loads(data))
    assert result.plan is not None and result.dataset is not None
    assert result.plan.total_steps == 100
    assert result.dataset.train_rows == 1


def test_a_small_result_is_told_in_full() -> None:
    result = StepResult(step="prepare", dataset=dataset_with("«yes»", []), plan=plan_with({"a": "b"}, ["c"]))
    assert StepResult.from_dict(json.loads(encode(result))) == result


def test_the_example_goes_before_reasons_and_warnings() -> None:
    reasons = {f"field{i}": "why " * 18 for i in range(25)}
    result = StepResult(step="prepare", dataset=dataset_with("e" * 1024, []), plan=plan_with(reasons, ["w" * 100]))
    assert len(result.to_json()) > MAX_TERMINATION_BYTES
    decoded = StepResult.from_dict(json.loads(encode(result)))
    assert decoded.plan is not None and decoded.dataset is not None
    assert decoded.plan.reasons == reasons
    assert decoded.plan.warnings == ["w" * 100]
    assert decoded.dataset.example != result.dataset.example


def test_the_longest_verdict_fits_even_where_its_bytes_do_not() -> None:
    verdict = Verdict(failure_class=FailureClass.CRASHED, message="文" * 1024, hint="文" * 512)
    data = encode(StepResult(step="train", verdict=verdict))
    assert len(data) <= MAX_TERMINATION_BYTES
    decoded = StepResult.from_dict(json.loads(data)).verdict
    assert decoded is not None
    assert decoded.failure_class is FailureClass.CRASHED
    assert decoded.message.startswith("文" * 100)


def test_the_longest_changes_fit_beside_the_longest_verdict() -> None:
    verdict = Verdict(failure_class=FailureClass.OUT_OF_MEMORY, message="\u2192" * 1024, hint="\u2192" * 512)
    changes = [f"{number}" + "\u2192" * 255 for number in range(8)]
    data = encode(StepResult(step="train", verdict=verdict, restarts=8, changes=changes))
    assert len(data) <= MAX_TERMINATION_BYTES
    assert StepResult.model_validate_json(data).changes[-1].startswith("7")


def test_what_cannot_be_shortened_enough_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than 100"):
        encode(fullest("x"), limit=100)


@pytest.mark.parametrize(("length", "expected"), [(10, 10), (5000, 1024)])
def test_bad_input_becomes_a_verdict_that_names_the_field(length: int, expected: int) -> None:
    error: Any = BadInput("spec.dataset.train", "m" * (length - len("spec.dataset.train: ")) or "", "h" * length)
    verdict = error.verdict()
    assert verdict.failure_class is FailureClass.BAD_INPUT
    assert verdict.exit_code == error.exit_code == 64
    assert verdict.message.startswith("spec.dataset.train: ")
    assert len(verdict.message) == max(expected, len("spec.dataset.train: "))
    assert len(verdict.hint) == min(length, 512)
