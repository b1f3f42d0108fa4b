"""`make gpu`: it has tests to run, no other tier runs them, and a machine without a GPU fails instead of passing."""

import re
import subprocess
from pathlib import Path

import pytest

from dev import gpu, stages


def marked_files() -> list[str]:
    """The files below the target's folder that mark tests for it: collecting all of the folder takes a minute."""
    (folder,) = (Path(gpu.ROOT, word) for word in gpu.COMMAND if word.endswith("/tests"))
    return [str(path) for path in sorted(folder.rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]


def collected(markers: str) -> set[str]:
    """The tests of these files that pytest would run with `-m markers`."""
    command = [*gpu.COMMAND[: gpu.COMMAND.index("-m", 2)], "-m", markers, "--collect-only", "-q", *marked_files()]
    run = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode in (0, 5), run.stdout + run.stderr
    return set(re.findall(r"^\S+::\S+", run.stdout, re.MULTILINE))


@pytest.mark.train  # Collecting imports the trainer's whole stack.
def test_the_target_has_tests_of_all_that_only_a_gpu_shows() -> None:
    names = collected(gpu.MARKER)
    for part in ("[LoRA]", "[QLoRA]", "[Full]", "nf4", "offloading", "memory_that_the_gpu_refuses"):
        assert any(part in name for name in names), part


@pytest.mark.train  # Collecting imports the trainer's whole stack.
def test_no_other_tier_runs_them() -> None:
    tiers = {stage.command for tier in stages.TIERS.values() for stage in tier if stage.tests}
    markers = {command[command.index("-m", command.index("pytest")) + 1] for command in tiers}
    assert stages.CHECK_MARKERS in markers
    assert collected(f"{gpu.MARKER} and ({' or '.join(f'({each})' for each in sorted(markers))})") == set()


def test_without_a_gpu_it_fails_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: pytest.fail("nothing is to be run"))
    assert gpu.main([]) == gpu.NO_GPU != 0
    assert "error: no GPU" in capsys.readouterr().err


def test_with_a_gpu_pytests_verdict_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(gpu, "problem", lambda: None)
    monkeypatch.setattr(subprocess, "call", lambda command, **_: commands.append(tuple(command)) or 5)
    assert gpu.main(["-k", "nf4"]) == 5
    assert commands == [(*gpu.COMMAND, "-k", "nf4")]
