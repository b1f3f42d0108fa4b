"""Runs that SIGKILL ends, in processes that import nothing: they are forked from one that has imported all.

A start of a launcher imports torch, transformers and TRL in every rank, which takes longer than a tiny run.
"""

import functools
import multiprocessing
import os
import pkgutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = (
    "hone_trainer.objectives.trainer.TrainerMixin.micro_batch_step",
    "hone_trainer.objectives.trainer.TrainerMixin.evaluate",
    "hone_trainer.search.trial.TrialWatch.on_evaluate",
    "hone_trainer.search.base.LoadedBase.take_back",
    "hone_trainer.search.study.Study.begin",
    "hone_trainer.search.study.Study.end",
    "optuna.storages.journal.JournalFileBackend.append_logs",
    "hone_trainer.search.conduct.write_atomic",
    "hone_trainer.search.choice.choose",
    "hone_trainer.search.conduct.save_search",
    "hone_trainer.protocol.searchfile.write_atomic",
)
"""Functions whose beginnings and ends are moments."""


def train(root: Path, kill_at: int | None = None) -> int:
    """Train the run under `root`, and have it killed at a moment, counted from 0; returns the exit code.

    The number of moments that have passed is in `<root>/moments`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["in_process", "hone_trainer.search.conduct", "trl.trainer.sft_trainer"])
    process = context.Process(target=_train, args=(root, kill_at))
    process.start()
    process.join()
    code = process.exitcode
    assert code is not None
    return code


def _train(root: Path, kill_at: int | None) -> None:
    import pytest
    import tiny
    from in_process import train_here

    passed = 0

    def pass_moment() -> None:
        nonlocal passed
        if passed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    with tiny.only_rank(), pytest.MonkeyPatch.context() as patch:
        for place in PLACES:
            patch.setattr(place, _between(pkgutil.resolve_name(place), pass_moment))
        train_here(root, patch)
    (root / "moments").write_text(str(passed))


def _between(function: Callable[..., Any], pass_moment: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        pass_moment()
        result = function(*args, **kwargs)
        pass_moment()
        return result

    return watched
