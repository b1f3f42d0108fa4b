"""Whether the checkpoints fit, and how errors of a full disk are known."""

import errno
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from hone.contract.exits import FailureClass
from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.planning.volume import check_output, check_volume
from hone_trainer.protocol.errors import BadInput, WorkspaceFull
from hone_trainer.protocol.units import GIB
from hone_trainer.protocol.verdicts import from_exception
from hone_trainer.training import checkpoint


def plan_with(checkpoint_bytes: int, **changes: object) -> Plan:
    """A plan with checkpoints of that size."""
    return Plan.model_construct(checkpoint_bytes=checkpoint_bytes, **{"zero_stage": 0, **changes})


@pytest.mark.parametrize(
    ("total", "free", "message"),
    [
        pytest.param(100, 60, None, id="they fit"),
        pytest.param(100, 59, "need 60.0 GiB, but 59.0 GiB are free: raise spec.workspace.size", id="now"),
        pytest.param(60, 10, "10.0 GiB are free", id="in an empty volume they would"),
    ],
)
def test_checkpoints_and_the_next_one_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, message: str | None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total * GIB, free=free * GIB))
    problem = check_volume(tmp_path, plan_with(20 * GIB), keep=2)
    assert problem is None if message is None else message in (problem or "")


def test_a_volume_that_can_never_hold_them_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=59 * GIB, free=59 * GIB))
    with pytest.raises(BadInput) as refused:
        check_volume(tmp_path, plan_with(20 * GIB), keep=2)
    assert refused.value.field == "spec.workspace.size"
    assert (
        "2 checkpoints and the one being written, of about 20.0 GiB each, need 60.0 GiB, but the volume has 59.0"
        in str(refused.value)
    )
    assert "at least 120.0 GiB" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        pytest.param({"zero_stage": 3, "method": "Full"}, 80, id="the last one also has what finish exports"),
        pytest.param({"zero_stage": 2, "method": "Full", "precision": "float32"}, 100, id="as it is trained"),
        pytest.param({"zero_stage": 2, "method": "LoRA"}, 62, id="of an adapter, what is trained"),
        pytest.param({"zero_stage": 0, "method": "Full"}, 60, id="without ZeRO all of them have it"),
    ],
)
def test_the_last_checkpoint_is_larger_under_zero(
    changes: dict[str, object], needed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1000 * GIB, free=GIB))
    facts = {"precision": "bfloat16", "parameters": 10 * GIB, "trainable_parameters": GIB // 2, **changes}
    assert f"need {needed}.0 GiB" in (check_volume(tmp_path, plan_with(20 * GIB, **facts), keep=2) or "")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("Error while serializing: I/O error: Input/output error (os error 5)"), False),
    ],
)
def test_a_checkpoint_without_space_says_so(tmp_path: Path, error: Exception, full: bool) -> None:
    with pytest.raises(WorkspaceFull if full else type(error)) as raised, checkpoint.saving(tmp_path / "checkpoint-4"):
        raise error
    if full:
        verdict = from_exception(raised.value, 1, 0, 4)
        assert (verdict.failure_class, verdict.rank) == (FailureClass.CRASHED, 1)
        assert verdict.hint == "The workspace is full: raise spec.workspace.size."
        assert "no space is left for checkpoint-4" in verdict.message


@pytest.mark.parametrize(
    ("code", "full"),
    [
        pytest.param(errno.ENOSPC, True, id="full"),
        pytest.param(errno.EDQUOT, True, id="over its quota"),
        pytest.param(errno.EIO, False, id="broken"),
        pytest.param(None, False, id="with room"),
    ],
)
def test_a_write_that_torch_failed_at_is_told_by_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, full: bool
) -> None:
    def flush(_: int) -> None:
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fdatasync", flush)
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    with pytest.raises(WorkspaceFull if full else RuntimeError) as raised, checkpoint.saving(tmp_path / "checkpoint-4"):
        raise error
    hint = from_exception(raised.value, 1, 0, 4).hint
    assert hint == ("The workspace is full: raise spec.workspace.size." if full else None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("objective", "method", "merge", "experts", "whole"),
    [("SFT", "Full", False, False, True), ("SFT", "LoRA", False, False, False), ("SFT", "LoRA", True, False, True),
     ("SFT", "LoRA", False, True, True), ("Reward", "LoRA", False, False, True)],
)  # fmt: skip
def test_a_whole_model_that_the_artifacts_claim_cannot_hold_is_refused(
    objective: str, method: str, merge: bool, experts: bool, whole: bool
) -> None:
    config = RunConfig.from_dict(
        {
            "job": {"namespace": "n", "name": "j", "uid": "u"},
            "modelName": "m",
            "objective": objective,
            "method": {"type": method},
            "data": {"train": "t"},
            "mergeOutput": merge,
            "outputBytes": 20 * GIB,
        }
    )
    check_output(config, 20 * GIB, serves_adapter=not experts)
    with pytest.raises(BadInput) if whole else nullcontext() as refused:
        check_output(config, 21 * GIB, serves_adapter=not experts)
    if refused is not None:
        assert "a whole model of 21.0 GiB, but its claim has 20.0 GiB" in str(refused.value)
        assert refused.value.field == "spec.output.size" and "at least 23.1 GiB" in refused.value.hint
