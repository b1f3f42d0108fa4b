"""Prepare as its pods run it on a workspace that jobs share: what others read stays, and what nobody reads goes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, serving

from hone.contract.runconfig import ATTEMPT_ENV, Attempt, RunConfig, SharedVolume
from hone_trainer.data.prepared import difference, load_prepared
from hone_trainer.protocol import manifest
from hone_trainer.protocol.planfile import require_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRST, SECOND, THIRD = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "123")


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[Hub]:
    with serving(Hub(commits={COMMIT: {path.name: path.read_bytes() for path in tiny_model.iterdir()}})) as served:
        yield served


def config_of(hub: Hub, make_config: Any, tmp_path: Path, uid: str, seed: int) -> RunConfig:
    """A job that downloads the model; jobs with another seed have other prepared data."""
    workspace, into = tmp_path / "workspace", tmp_path / "workspace/models" / f"{uid}-model"
    download = {"field": "spec.model", "uri": "hf://acme/tiny", "endpoint": hub.url, "downloaded": str(into)}
    return RunConfig.from_dict(
        make_config(
            job={"uid": uid},
            hyperparameters={"seed": seed},
            paths={"model": str(into), "run": str(workspace / "test/tiny" / uid)},
            merges=[download],
        )
    )


def begin(config: RunConfig, tmp_path: Path, others: list[str]) -> subprocess.Popen[str]:
    """The prepare pod of a job: as little as possible is to be kept, and these other jobs have not ended."""
    volume = SharedVolume(path=config.paths.workspace, limit_bytes=1, runs=others, as_of=time.time() + 7200)
    path = tmp_path / f"{config.job.uid}.json"
    path.write_text(config.to_json())
    environment = {
        **os.environ,
        "HONE_RUN_CONFIG": str(path),
        "HONE_TERMINATION_LOG": str(tmp_path / f"{config.job.uid}.term"),
        ATTEMPT_ENV: Attempt(number=1, shared=[volume]).to_json(),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "hone_trainer.prepare"]
    return subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]


def assert_whole(config: RunConfig) -> None:
    """What the job trains on is there, as it was written."""
    prepared = Path(require_plan(config).prepared)
    assert difference(prepared, prepared.name) is None
    assert len(load_prepared(prepared).train) > 0
    assert (Path(config.paths.model) / "model.safetensors").is_file()
    assert manifest.list_files(Path(config.paths.model))


def test_two_jobs_at_a_time_keep_what_they_read_and_the_next_ones_remove_it(
    hub: Hub, make_config: Any, tmp_path: Path
) -> None:
    first, second = (config_of(hub, make_config, tmp_path, uid, seed) for uid, seed in ((FIRST, 1), (SECOND, 2)))
    both = [begin(first, tmp_path, [SECOND]), begin(second, tmp_path, [FIRST])]
    for process in both:
        ended(process)
    assert_whole(first)
    assert_whole(second)
    before = sum(hub.sent.values())
    third = config_of(hub, make_config, tmp_path, THIRD, 3)
    ended(begin(third, tmp_path, [SECOND]))
    assert_whole(third)
    assert_whole(second)
    assert not Path(require_plan(first).prepared).exists(), "the first job has ended, so its data are gone"
    assert not Path(first.paths.model).exists()
    assert sum(hub.sent.values()) == before, "the model that all of them have was downloaded no more"
