"""How long a run may stand still: from its plan and spec, and in every process group that its ranks make."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from hone.contract.plan import Plan
from hone.contract.runconfig import DataPaths, JobIdentity, RunConfig
from hone_trainer.protocol import deadlines
from hone_trainer.training import collectives


def run(floor: float = 300.0) -> RunConfig:
    """A run with this floor."""
    return RunConfig(
        job=JobIdentity(namespace="n", name="j", uid="u"),
        model_name="m",
        data=DataPaths(train="t"),
        hang_floor_seconds=floor,
    )


def plan(**changes: object) -> Plan:
    """The plan of a model of a million parameters, whose checkpoints take a second."""
    facts = {"checkpoint_bytes": 50_000_000, "checkpoint_seconds": 1.0, "parameters": 1_000_000, **changes}
    return Plan.model_construct(**facts)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        pytest.param({}, 303, id="a small one"),
        pytest.param({"checkpoint_seconds": 1200.0}, 3900, id="8B Full at 90 MB/s"),
        pytest.param({"checkpoint_seconds": None, "checkpoint_bytes": 100_000_000_000}, 6300, id="of unknown speed"),
    ],
)
def test_a_save_may_take_what_the_plan_expects_of_it(changes: dict[str, object], seconds: float) -> None:
    assert deadlines.save_seconds(run(), plan(**changes)) == seconds


@pytest.mark.parametrize(
    ("usual", "floor", "seconds"), [(None, 300, 3000), (None, 900, 9000), (1.0, 300, 300), (45.0, 300, 450)]
)
def test_a_part_of_a_step_may_take_ten_times_what_is_usual(usual: float | None, floor: float, seconds: float) -> None:
    assert deadlines.usual_seconds(run(floor), usual) == seconds


@pytest.mark.parametrize(
    ("changes", "floor"),
    [
        pytest.param({}, 300.0, id="a small one"),
        pytest.param({}, 3600.0, id="a high floor"),
        pytest.param({"checkpoint_seconds": 5000.0}, 300.0, id="a slow save"),
        pytest.param({"checkpoint_seconds": None, "checkpoint_bytes": 10**12}, 300.0, id="a save of unknown speed"),
        pytest.param({"parameters": 405_000_000_000}, 300.0, id="a large model, which another rank still loads"),
    ],
)
def test_collectives_wait_for_longer_than_the_launcher_does(changes: dict[str, object], floor: float) -> None:
    config, planned = run(floor), plan(**changes)
    wait = deadlines.collective_seconds(config, planned)
    assert wait > 1.5 * deadlines.save_seconds(config, planned)
    assert wait > 1.5 * deadlines.usual_seconds(config, None)
    assert wait * deadlines.SLOWEST_BYTES_PER_SECOND > 2 * planned.parameters


@pytest.fixture
def alone() -> Iterator[None]:
    """This process as the only rank, as accelerate makes it on CPUs: without a time."""
    defaults = distributed_c10d.default_pg_timeout, distributed_c10d.default_pg_nccl_timeout
    collectives.wait_at_most(7777)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    distributed_c10d.default_pg_timeout, distributed_c10d.default_pg_nccl_timeout = defaults


def test_every_group_waits_as_long(alone: None) -> None:
    own = dist.new_group(ranks=[0])  # as DeepSpeed makes its groups
    for group in (distributed_c10d._get_default_group(), own):
        assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=7777)
    assert distributed_c10d._get_default_timeout("nccl") == timedelta(seconds=7777)
