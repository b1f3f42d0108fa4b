"""Mutated model directories: each is refused as BadInput or is right; none crashes, takes long or discloses a file."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspector import MEMORY, SECONDS
from mutations import MUTATIONS

HERE = Path(__file__).parent


def outcomes(model: Path, scratch: Path, first: int, last: int) -> list[dict[str, Any]]:
    """What became of these seeds."""
    command = [sys.executable, str(HERE / "inspector.py"), str(model), str(scratch), str(first), str(last)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(results) == last - first, ended.stderr[-3000:]
    return results


def check(results: list[dict[str, Any]]) -> None:
    wrong = [each for each in results if not each["outcome"].startswith(("BadInput: ", "right"))]
    assert not wrong, json.dumps(wrong[:5], indent=1)
    slow = [each for each in results if each["seconds"] > SECONDS or each["bytes"] > MEMORY]
    assert not slow, slow[:5]


@pytest.mark.train
@pytest.mark.timeout(900)
def test_a_mutated_model_is_refused_or_right(tiny_model: Path, tmp_path: Path) -> None:
    results = outcomes(tiny_model, tmp_path / "scratch", 0, 80)
    check(results)
    # The mutations are neither all harmless nor all fatal, and all of them occur.
    kinds = collections.Counter(each["outcome"].split(":")[0] for each in results)
    assert kinds["BadInput"] > 20 and kinds["right"] > 5
    assert {name for each in results for name in each["mutations"]} == set(MUTATIONS)


@pytest.mark.train
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(5))
def test_hundreds_of_mutated_models_are_refused_or_right(tiny_model: Path, tmp_path: Path, part: int) -> None:
    check(outcomes(tiny_model, tmp_path / "scratch", 100 * (part + 1), 100 * (part + 2)))


SLICES = 20
MODELS = 500
"""Models of a slice."""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(SLICES))
def test_no_mutated_model_breaks_prepare(tiny_model: Path, tmp_path: Path, part: int) -> None:
    first = 1000 + part * MODELS
    check(outcomes(tiny_model, tmp_path / "scratch", first, first + MODELS))
