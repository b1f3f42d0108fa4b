"""The stage runner behind `make check` and `make test`: what it runs, when it stops, and what its closing line says."""

import os
import sys
from pathlib import Path

import pytest

from dev import stages
from dev.stages import Counts, Stage

REPORT = """<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1"/></testsuites>"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this test's reports away from those of the run that it is part of."""
    monkeypatch.setattr(stages, "REPORTS", tmp_path)
    return tmp_path


def script(name: str, code: str, **options: object) -> Stage:
    """A stage that runs Python code."""
    return Stage(name, (sys.executable, "-c", code), **options)  # type: ignore[arg-type]


def test_counts_failures_and_errors_as_failed(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(REPORT)
    counts = Counts()
    counts.add(tmp_path / "a.xml")
    counts.add(tmp_path / "a.xml")
    assert counts.total == {"passed": 4, "failed": 4, "skipped": 2}
    assert counts.line(61.2) == "== 4 passed, 4 failed, 2 skipped in 61s =="


def test_a_report_that_is_not_there_adds_nothing(tmp_path: Path) -> None:
    counts = Counts()
    counts.add(tmp_path / "none.xml")
    assert counts.line(1) == "== 0 passed, 0 failed in 1s =="


def test_stops_at_the_first_stage_that_fails_and_hands_on_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tier = (
        script("first", "print('one')"),
        script("second", "raise SystemExit(3)"),
        script("third", f"open({str(tmp_path / 'third')!r}, 'w')"),
    )
    assert stages.run_tier(tier, ()) == 3
    assert not (tmp_path / "third").exists()
    out = capfd.readouterr().out
    assert "stage 'second' failed with exit code 3" in out
    assert out.rstrip().splitlines()[-1].startswith("== 0 passed, 1 failed in ")


def test_a_stage_that_hangs_is_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    hangs = script("hangs", "import signal; signal.pause()", seconds=1)
    assert stages.run_tier((hangs,), ()) == 124
    assert "did not end within 0:01" in capfd.readouterr().out


def test_an_early_stage_is_begun_before_its_turn(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    waits = f"import pathlib, time\nwhile not pathlib.Path({mark!r}).exists(): time.sleep(0.01)"
    tier = (
        script("waits for what the early one makes", waits, seconds=30),
        script("early", f"open({mark!r}, 'w')", early=True),
    )
    assert stages.run_tier(tier, ()) == 0


def test_pytest_gets_the_users_arguments_and_a_report(tmp_path: Path) -> None:
    stage = Stage("unit tests", ("pytest",), tests=True)
    assert stages.command_of(stage, ("-k", "x")) == ("pytest", f"--junitxml={tmp_path}/unit-tests.xml", "-k", "x")
    assert stages.command_of(script("other", "pass"), ("-k", "x"))[-1] == "pass"


def test_the_test_tier_contains_every_other_tier() -> None:
    for name, tier in stages.TIERS.items():
        assert set(tier) <= set(stages.TIERS["test"]), name


def test_what_check_leaves_out_as_slow_is_run_by_test() -> None:
    assert stages.CHECK_MARKERS.endswith(" and not slow")
    assert stages.SLOW_MARKERS.endswith(" and slow")
    assert {markers.rsplit(" and ", 1)[0] for markers in (stages.CHECK_MARKERS, stages.SLOW_MARKERS)} == {
        stages.FAST_MARKERS
    }
    assert stages.SLOW in stages.TIERS["test"]
    assert stages.SLOW not in stages.TIERS["check"]


def test_each_integration_test_is_in_one_stage_of_those_that_test_runs() -> None:
    together, alone = stages.INTEGRATION.command, stages.MEASURING.command
    assert "integration and not alone" in together and "-n" in together
    assert "integration and alone" in alone and "-n" not in alone
    assert {stages.INTEGRATION, stages.MEASURING} <= set(stages.TIERS["test"])


def test_stages_write_bytecode_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("PYTHONPATH", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    stages.environment()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
