"""How often a run saves itself, and what is said at preflight of a save that is too slow."""

import os
from pathlib import Path

import pytest

from hone.contract.settings import Checkpoint
from hone_trainer.planning import write_speed
from hone_trainer.planning.checkpoint_schedule import plan_saves

GB = 10**9


def test_a_slow_save_is_told_with_the_grace_period_that_suits() -> None:
    saves = plan_saves(Checkpoint(), 1000, 20 * GB, 100e6)
    assert saves.seconds == pytest.approx(200)
    assert saves.reasons["checkpointSeconds"] == "20.0 GB at 100 MB/s, measured on the workspace."
    [warning] = saves.warnings
    assert "takes 200 s to save" in warning
    assert "has 120 s" in warning
    assert "gracePeriodSeconds to 400." in warning
    assert plan_saves(Checkpoint(grace_period_seconds=400), 1000, 20 * GB, 100e6).warnings == []


def test_what_no_grace_period_suits_needs_a_faster_workspace() -> None:
    [warning] = plan_saves(Checkpoint(), 1000, 900 * GB, 100e6).warnings
    assert "gracePeriodSeconds to" not in warning
    assert "faster workspace" in warning


def test_by_default_a_tenth_but_not_more_often_than_pays() -> None:
    saves = plan_saves(Checkpoint(), 1000, 10 * GB, 1e9)
    assert (saves.every_steps, saves.every_minutes) == (100, None)
    assert saves.min_seconds == pytest.approx((2 * 10 * 4 * 3600) ** 0.5)
    assert saves.reasons["checkpointMinSeconds"] == "√(2 × 10 s to save × 4 h between failures)."


@pytest.mark.parametrize("requested", [Checkpoint(every_steps=7), Checkpoint(every_minutes=3)])
def test_what_is_asked_holds(requested: Checkpoint) -> None:
    saves = plan_saves(requested, 1000, 10 * GB, 1e9)
    assert (saves.every_steps, saves.every_minutes) == (requested.every_steps, requested.every_minutes)
    assert saves.min_seconds is None


def test_without_a_measurement_nothing_is_said_of_time() -> None:
    saves = plan_saves(Checkpoint(), 1000, 10 * GB, None)
    assert (saves.seconds, saves.min_seconds, saves.warnings) == (None, None, [])


def test_measuring_is_bounded_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_speed, "MOST_BYTES", 24 << 20)
    sizes = []
    flush = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (sizes.append(os.fstat(file).st_size), flush(file)))
    assert write_speed.write_speed(tmp_path) > 0
    assert 0 < sizes[-1] <= 24 << 20
    assert list(tmp_path.iterdir()) == []


def test_measuring_ends_in_time_on_a_slow_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(write_speed.time, "monotonic", lambda: float(next(clock)))
    flushed = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    write_speed.write_speed(tmp_path)
    assert 1 <= len(flushed) <= 2, "each look at the clock is a second later, and two seconds are the most"


def test_a_volume_without_room_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_speed.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    assert write_speed.write_speed(tmp_path) is None


def test_a_volume_that_refuses_is_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "fdatasync", full)
    assert write_speed.write_speed(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
