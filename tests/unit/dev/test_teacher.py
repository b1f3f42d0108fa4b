"""The teacher that distillation is tried with: built once by the pods' own steps, then cached."""

import json
from pathlib import Path
from typing import Any

import pytest

from dev import teacher
from hone.contract.runconfig import RunConfig


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_made_by_the_three_steps_and_found_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        ran.append(command[-1])
        config = RunConfig.from_dict(json.loads(Path(env["HONE_RUN_CONFIG"]).read_text()))
        rows = Path(config.data.train).read_text().splitlines()
        assert len(rows) == teacher.ROWS
        assert (config.method.type, config.paths.model) == ("Full", str(tmp_path / "base"))
        if ran[-1].endswith("finish"):
            (Path(config.paths.output) / "artifact").mkdir()

    monkeypatch.setattr(teacher.subprocess, "run", run)
    folder = teacher.ensure(tmp_path / "base")
    assert ran == ["hone_trainer.prepare", "hone_trainer.launch", "hone_trainer.finish"]
    assert folder == teacher.place(tmp_path / "base")
    assert teacher.ensure(tmp_path / "base") == folder
    assert len(ran) == 3, "cached, not built again"
    assert teacher.place(tmp_path / "other") != folder
    assert sorted(path.name for path in (cache / "teacher").iterdir()) == [".lock", folder.name]


def test_a_run_that_fails_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise teacher.subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(teacher.subprocess, "run", run)
    with pytest.raises(teacher.subprocess.CalledProcessError):
        teacher.ensure(tmp_path / "base")
    assert [path.name for path in (cache / "teacher").iterdir()] == [".lock"]
