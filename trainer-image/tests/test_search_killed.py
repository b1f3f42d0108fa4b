"""A search whose pods are killed at any moment: no trial is lost or made twice, and the choice is the same.

Launchers as local processes, as in test_kill_moments.py. What is killed once is spared in the next start, so a list of
moments strikes one search, start after start.
"""

import shutil
import signal
from pathlib import Path

import forked
import pytest
from launchers import START_SECONDS, Launcher, largest_difference
from searches import journal, make_search

from hone.contract.exits import FailureClass
from hone.contract.runconfig import RunConfig
from hone.contract.search import Search
from hone_trainer.protocol.searchfile import load_search

pytestmark = pytest.mark.timeout(3000)

RUN = {"trials": 4, "steps_per_trial": 12, "steps": 12, "every": 6}
FEW = ["evaluate=3:trial=0", "step=2:trial=1", "evaluated=3:trial=3", "evaluate=3:trial=-1"]
"""Moments, of which trial -1 is the training that follows."""
EVENLY = 20
"""Moments of a search that are spread evenly over all of them."""


@pytest.mark.parametrize(
    ("moments", "processes"),
    [
        pytest.param(FEW, 1, id="few", marks=pytest.mark.train),
        pytest.param(FEW, 2, id="two-ranks", marks=pytest.mark.soak),
    ],
)
def test_a_search_that_is_killed_makes_the_same_trials_and_the_same_choice(
    moments: list[str], processes: int, tmp_path: Path
) -> None:
    search = Search(trials=4, seed=3)
    whole = make_search(tmp_path / "whole", processes=processes, search=search, **RUN)
    assert _start(tmp_path / "whole", "whole").wait(START_SECONDS)[0] == 0
    config = make_search(tmp_path / "killed", processes=processes, search=search, shared=tmp_path / "whole", **RUN)
    rank = processes - 1
    for number, moment in enumerate(moments):
        mark = tmp_path / f"mark-{number}"
        launcher = _start(tmp_path / "killed", f"pod-{number}", f"kill@{moment}:rank={rank}:once={mark}")
        code, result = launcher.wait(START_SECONDS)
        assert code and result.verdict, launcher.log()
        assert result.verdict.failure_class in (FailureClass.CRASHED, FailureClass.OUT_OF_MEMORY)
        _check_prefix(config, whole)
    launcher = _start(tmp_path / "killed", "last")
    code, result = launcher.wait(START_SECONDS)
    assert code == 0, launcher.log()
    record, expected = load_search(config), load_search(whole)
    assert record and expected and journal(config) == journal(whole)
    assert record.model_copy(update={"run_config": ""}) == expected.model_copy(update={"run_config": ""})
    assert result.search == record.summary and result.search.done == 4
    assert largest_difference(config, whole) == 0.0


@pytest.mark.soak
def test_sigkill_at_moments_spread_evenly_over_a_search_changes_nothing(tmp_path: Path) -> None:
    whole = make_search(tmp_path / "whole", **RUN)
    assert forked.train(tmp_path / "whole") == 0
    expected, count = load_search(whole), int((tmp_path / "whole/moments").read_text())
    assert expected and count > 5 * EVENLY
    lengths = set()
    for number in range(EVENLY):
        root = tmp_path / f"killed-{number}"
        config = make_search(root, shared=tmp_path / "whole", **RUN)
        assert forked.train(root, kill_at=number * (count - 1) // (EVENLY - 1)) == -signal.SIGKILL
        _check_prefix(config, whole)
        lengths.add(len(journal(config)))
        assert forked.train(root) == 0
        record = load_search(config)
        assert record and journal(config) == journal(whole)
        assert record.model_copy(update={"run_config": ""}) == expected.model_copy(update={"run_config": ""})
        assert largest_difference(config, whole) == 0.0
        shutil.rmtree(root)
    assert lengths == {0, 1, 2, 3, 4}


def _check_prefix(config: RunConfig, whole: RunConfig) -> None:
    """Every trial up to now is that of the run that was left alone."""
    trials = journal(config)
    assert trials == journal(whole)[: len(trials)]


def _start(root: Path, name: str, faults: str = "") -> Launcher:
    return Launcher(root, name, faults=faults)


@pytest.mark.train
def test_two_ranks_search_as_one_run_and_a_stop_in_a_trial_is_a_preemption(tmp_path: Path) -> None:
    config = make_search(tmp_path, processes=2, **RUN)
    mark = tmp_path / "mark"
    launcher = Launcher(tmp_path, "stopped", faults=f"hold@step=7:rank=1:once={mark}")
    try:
        launcher.until_true(mark.with_name("mark.rank1").exists)
        progress = launcher.progress()
        assert progress and progress["stage"] in ("Searching", "Starting") and progress["step"] == 0
        launcher.process.terminate()
        code, result = launcher.wait(START_SECONDS)
    finally:
        launcher.kill()
    assert code and result.verdict and result.verdict.failure_class is FailureClass.PREEMPTED
    assert load_search(config) is None
    again = Launcher(tmp_path, "again")
    code, result = again.wait(START_SECONDS)
    assert code == 0, again.log()
    record = load_search(config)
    assert record and [trial[0] for trial in journal(config)] == [0, 1, 2, 3]
    assert result.search == record.summary and record.summary.best
