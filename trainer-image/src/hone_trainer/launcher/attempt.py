"""One pod's attempt as its launcher knows it: its rung, how often its ranks were started, what it tells."""

import os
import time

from hone.contract.plan import Plan
from hone.contract.progress import Progress
from hone.contract.runconfig import POD_UID_ENV, Attempt, RunConfig
from hone.contract.verdict import Verdict
from hone_trainer.planning import memory_fallback
from hone_trainer.protocol.probe import Probe, load_probe
from hone_trainer.protocol.status import StatusDir
from hone_trainer.training import checkpoint

_BEFORE_STEPS = {"Starting": "before training began", "Probing": "in the steps tried out first"}
"""Where memory ran out, by the rank's stage; in others, a step says it."""


class Pod:
    """State of one launcher; changed by its main thread alone, read by the HTTP server's.

    Args:
        config: the run's configuration.
        planned: the plan as prepare made it.
        attempt: what the operator told of this attempt.
        node: index of this pod in the gang.
        status: where its ranks tell their state.
    """

    def __init__(self, config: RunConfig, planned: Plan, attempt: Attempt, node: int, status: StatusDir) -> None:
        self.config = config
        self.planned = planned
        self.node = node
        self.status = status
        self.rungs = memory_fallback.rungs(planned, config.topology)
        self.restarts = 0
        self.measured: Probe | None = None
        """What the probe measured on this rung."""
        self._remembered = memory_fallback.load_rung(config)
        rung = memory_fallback.rung_of(self.rungs, attempt, self._remembered, self.checkpoint_stage())
        self.attempt = attempt.model_copy(update={"memory_rung": rung})
        """The attempt, on the rung that it really stands on; the ranks are told this one."""
        self._base = Progress(pod_uid=os.environ.get(POD_UID_ENV, ""), total_steps=planned.total_steps)

    @property
    def rung(self) -> int:
        """The rung of the ladder for memory."""
        return self.attempt.memory_rung

    @property
    def changes(self) -> list[str]:
        """What it does otherwise than planned, in sentences."""
        return memory_fallback.changes_of_attempt(self.planned, self.rungs, self.attempt, self._remembered)

    def checkpoint_stage(self) -> int | None:
        """ZeRO stage of the newest checkpoint, or None before the first one."""
        newest = checkpoint.newest(self.config)
        return newest[1].zero_stage if newest else None

    def probe_due(self) -> bool:
        """Whether two steps are to be tried out before the ranks train."""
        return self.planned.probe and self.measured is None and checkpoint.newest(self.config) is None

    def begin(self) -> None:
        """Note where a start of the ranks begins, for whoever asks before rank 0 has told."""
        newest = checkpoint.newest(self.config)
        step = newest[1].step if newest else None
        self.measured = load_probe(self.config, self.rung)
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
        told = self.status.statuses().get(verdict.rank) if verdict.rank is not None else None
        return told.stage if told else None

    def step_down(self, rung: int, verdict: Verdict) -> None:
        """Take the next rung, for this pod and for the attempts after it, and say why.

        Args:
            rung: the rung to stand on.
            verdict: what ended the ranks on the one above.
        """
        where = _BEFORE_STEPS.get(self._stage(verdict), f"at step {(verdict.step or 0) + 1}")
        told = memory_fallback.causes(self.rungs, self.rung, self._remembered)
        told += [f"{one.change}: out of memory {where}" for one in self.rungs[self.rung + 1 : rung + 1]]
        self._remembered = memory_fallback.save_rung(self.config, rung, told)
        self.attempt = self.attempt.model_copy(update={"memory_rung": rung})
        self.restarts += 1

    def progress(self) -> Progress:
        """Rank 0's progress, with what only the launcher knows; until it has told any, where the start began."""
        base = self._base
        told = self.status.statuses().get(0)
        if told is None:
            return base
        own = told.model_dump(include=set(Progress.model_fields))
        # Steps of the probe are none of the run.
        step = base.step if told.stage == "Probing" else told.step
        return Progress.model_validate({**own, "step": step, "restarts": base.restarts, "changes": base.changes})
