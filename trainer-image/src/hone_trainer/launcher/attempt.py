"""One pod's attempt as its launcher knows it: its memory fallback level, its restarts, its progress."""

import os
import time

from hone.contract.plan import Plan
from hone.contract.progress import Progress
from hone.contract.runconfig import POD_UID_ENV, Attempt, RunConfig
from hone.contract.verdict import Verdict
from hone_trainer.planning import memory_fallback
from hone_trainer.protocol.errors import clip
from hone_trainer.protocol.probe import Probe, load_probe
from hone_trainer.protocol.status import StatusDir
from hone_trainer.protocol.units import gib
from hone_trainer.training import checkpoint

MAX_CHANGE = 256
"""Most characters of a sentence on what differs from the plan, as in StepResult."""
_BEFORE_STEPS = {
    "Starting": "before training began",
    "Probing": "in the probe",
    "Searching": "in a trial of the search",
}
"""Where memory ran out, by the rank's stage; in others, a step says it."""


class PodAttempt:
    """State of one launcher; changed by its main thread alone, read by the HTTP server's.

    Args:
        config: the run's configuration.
        planned: the plan as prepare made it.
        attempt: the attempt as the operator configured it.
        node: index of this pod in the gang.
        status: where its ranks report their state.
    """

    def __init__(self, config: RunConfig, planned: Plan, attempt: Attempt, node: int, status: StatusDir) -> None:
        self._began = time.monotonic()
        self.config = config
        self.planned = planned
        self.node = node
        self.status = status
        self.levels = memory_fallback.fallback_levels(planned, config.topology)
        self.restarts = 0
        self._given_up: list[str] = []
        self.measured: Probe | None = None
        """What the probe measured at this level of the memory fallback."""
        self._reached = memory_fallback.load_level(config)
        level = memory_fallback.level_of(self.levels, attempt, self._reached, self.checkpoint_stage())
        self.attempt = attempt.model_copy(update={"memory_fallback_level": level})
        """The attempt with its actual memory fallback level, as the ranks get it."""
        self._base = Progress(pod_uid=os.environ.get(POD_UID_ENV, ""), total_steps=planned.total_steps)

    @property
    def over_budget(self) -> bool:
        """Whether the pod has run as long as the budget allows, as the operator counts it: from its start."""
        seconds = self.attempt.budget_seconds
        return seconds is not None and time.monotonic() - self._began >= seconds

    @property
    def level(self) -> int:
        """The level of the memory fallback."""
        return self.attempt.memory_fallback_level

    @property
    def changes(self) -> list[str]:
        """How it differs from the plan, in sentences."""
        changes = memory_fallback.changes_of_attempt(self.planned, self.levels, self.attempt, self._reached)
        return [*changes, *(clip(words, MAX_CHANGE) for words in self._given_up)]

    def checkpoint_stage(self) -> int | None:
        """ZeRO stage of the newest checkpoint, or None before the first one."""
        newest = checkpoint.newest(self.config)
        return newest[1].zero_stage if newest else None

    def probe_due(self) -> bool:
        """Whether two steps are to be tried out before the ranks train."""
        return self.planned.probe and self.measured is None and checkpoint.newest(self.config) is None

    def begin(self) -> None:
        """Choose the checkpoint from which the ranks start: it is the progress until rank 0 has reported any."""
        self._given_up += checkpoint.discard_changed(self.config)
        newest = checkpoint.newest(self.config)
        step = newest[1].step if newest else None
        self.measured = load_probe(self.config, self.level)
        self._base = self._base.model_copy(
            update={
                "step": step or 0,
                "checkpoint_step": step,
                "seconds_per_step": self.measured.seconds_per_step if self.measured else None,
                "restarts": self.restarts,
                "changes": self.changes,
                "observed_time": time.time(),
            }
        )

    def was_loading(self, verdict: Verdict) -> bool:
        """Whether the rank of the verdict ended before it had begun to train."""
        return self._stage(verdict) == "Starting"

    def _stage(self, verdict: Verdict) -> str | None:
        status = self.status.statuses().get(verdict.rank) if verdict.rank is not None else None
        return status.stage if status else None

    def gpu_bytes(self) -> int | None:
        """Memory of the smallest GPU, as the ranks have reported; None if they have not, or the plan knows it."""
        reported = [one.gpu_total_bytes for one in self.status.statuses().values() if one.gpu_total_bytes]
        return min(reported, default=None) if self.planned.memory.limit_bytes is None else None

    def step_down(self, level: int, verdict: Verdict) -> None:
        """Continue at a further level of the memory fallback, in this pod and in later attempts, and record why.

        Args:
            level: the new level.
            verdict: what ended the ranks at the level before.
        """
        where = _BEFORE_STEPS.get(self._stage(verdict) or "", f"at step {(verdict.step or 0) + 1}")
        causes = memory_fallback.causes(self.levels, self.level, self._reached)
        gpu = f", on GPUs of {gib(total)}" if (total := self.gpu_bytes()) else ""
        causes += [f"{one.change}: out of memory {where}{gpu}" for one in self.levels[self.level + 1 : level + 1]]
        self._reached = memory_fallback.save_level(self.config, level, causes)
        self.attempt = self.attempt.model_copy(update={"memory_fallback_level": level})
        self.restarts += 1

    def progress(self) -> Progress:
        """Rank 0's progress, with what only the launcher knows; until it has reported any, where the start began."""
        base = self._base
        reported = self.status.statuses().get(0)
        if reported is None:
            return base
        own = reported.model_dump(include=set(Progress.model_fields))
        # Steps of the probe are none of the run.
        step = base.step if reported.stage == "Probing" else reported.step
        return Progress.model_validate({**own, "step": step, "restarts": base.restarts, "changes": base.changes})
