"""GRPO and RLOO on two processes: a gang that is killed continues, and ends with the weights of one left alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from launchers import END_SECONDS, START_SECONDS, Launcher, largest_difference, newest_step

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize(
    ("objective", "method"),
    [(Objective.GRPO, MethodType.LORA), (Objective.GRPO, MethodType.FULL), (Objective.RLOO, MethodType.FULL)],
)
def test_a_gang_that_was_killed_goes_on_exactly(
    objective: Objective, method: MethodType, stage: int, tmp_path: Path, start: Callable[..., Launcher]
) -> None:
    # With a tie to the base, so that Full has its second copy; of 8 answers to a prompt, each rank has some.
    plan = {"method": method, "zero_stage": stage, "processes": 2, "steps": 20, "every": 4, "beta": 0.05}
    plan |= {"objective": objective, "micro_batch": 4, "accumulation": 3, "learning_rate": 1e-3}
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    whole = tiny.make_run(alone, **plan)
    config = tiny.make_run(cut, **plan, shared=alone)
    launcher = start(alone, "a")
    code, result = launcher.wait(START_SECONDS + END_SECONDS)
    assert (code, result.final_step) == (0, 20), launcher.log()

    launcher = start(cut, "b1")
    launcher.until(lambda progress: progress.get("checkpointStep", 0) >= 4)
    launcher.kill()
    launcher.process.wait()
    assert 4 <= newest_step(config) < 20, "it was to be killed on its way"

    launcher = start(cut, "b2")
    code, result = launcher.wait(START_SECONDS + END_SECONDS)
    assert (code, result.final_step) == (0, 20), launcher.log()
    assert largest_difference(whole, config) == 0.0
