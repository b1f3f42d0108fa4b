"""PID 1 of a trainer pod: runs the ranks under torchrun, serves their figures, ends with Hone's exit code.

    python -m hone_trainer.launch

In a run of one pod, ranks that ran out of memory are started again at the next level of the memory fallback, without
ending the pod. Several pods end together, and their next attempt starts one level lower.

Environment: HONE_RUN_CONFIG, HONE_TERMINATION_LOG (both for use without a kubelet), JOB_COMPLETION_INDEX (node rank),
HONE_ATTEMPT, HONE_MASTER (DNS name of pod 0, with more than one node), HONE_MASTER_PORT, HONE_METRICS_PORT,
HONE_POD_UID.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from hone.contract.exits import FailureClass, exit_code
from hone.contract.results import StepResult
from hone.contract.runconfig import NODE_RANK_ENV, RunConfig
from hone.contract.verdict import Verdict
from hone_trainer.launcher import gang
from hone_trainer.launcher.attempt import PodAttempt
from hone_trainer.launcher.server import port_of_pod, serve
from hone_trainer.launcher.supervisor import Supervisor
from hone_trainer.planning.memory_fallback import MAX_CHANGES, hint_at_the_end, next_level
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import MAX_HINT, MAX_MESSAGE, BadInput, clip
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.probe import load_probe
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import load_attempt, load_run_config
from hone_trainer.protocol.searchfile import load_search, out_of_memory_trials
from hone_trainer.protocol.status import StatusDir
from hone_trainer.protocol.verdicts import of_pod, preempted
from hone_trainer.training import checkpoint
from hone_trainer.training.validation import validation_of

_WITHOUT_PEERS = (FailureClass.COMMUNICATION, FailureClass.NEVER_STARTED)

logger = logging.getLogger(__name__)


def main() -> int:
    """Train to the end, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    node = int(os.environ.get(NODE_RANK_ENV) or "0")
    directory = Path(tempfile.mkdtemp(prefix="hone-"))
    status = StatusDir(directory)
    # First of all: PID 1 has no default for signals, so one that comes before this is lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: status.raise_stop())
    try:
        result = _train(node, status)
    except BadInput as error:
        result = StepResult(step="train", verdict=error.verdict())
    except Exception as error:
        logger.exception("the launcher failed")
        verdict = Verdict(
            failure_class=FailureClass.CRASHED,
            message=clip(f"launcher: {type(error).__name__}: {error}", MAX_MESSAGE),
            node=node,
            time=time.time(),
        )
        result = StepResult(step="train", verdict=verdict)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def _train(node: int, status: StatusDir) -> StepResult:
    config = load_run_config()
    planned = require_plan(config)
    pod = PodAttempt(config, planned.plan, load_attempt(), node, status)
    verdict = _launch(pod) if checkpoint.final_checkpoint(config) is None else None
    if verdict and verdict.failure_class in _WITHOUT_PEERS and checkpoint.final_checkpoint(config):
        # The peers had trained to the end and left; a network file system can show their checkpoint here late.
        logger.warning("training had already finished", extra={"verdict": verdict.to_dict()})
        verdict = None
    result = StepResult(step="train", verdict=verdict, restarts=pod.restarts, changes=pod.changes)
    return result if verdict else _of_final_step(result, pod, config)


def _launch(pod: PodAttempt) -> Verdict | None:
    server = serve(port_of_pod(), pod.status, pod.progress if pod.node == 0 else None, lambda: pod.measured)
    logger.info("serving", extra={"port": server.server_port})
    gang.adopt_orphans()
    try:
        return _until_it_fits(pod)
    finally:
        server.shutdown()
        gang.end_children()


def _until_it_fits(pod: PodAttempt) -> Verdict | None:
    """Start the ranks, and again at the next level of the memory fallback as long as they run out of memory."""
    while True:
        failed_trials = out_of_memory_trials(pod.config)
        verdict = _start(pod)
        if verdict is None or verdict.failure_class is not FailureClass.OUT_OF_MEMORY:
            return verdict
        if pod.config.topology.nodes == 1 and out_of_memory_trials(pod.config) > failed_trials:
            # It was the trial's settings that took too much, and they are not tried again.
            pod.restarts += 1
            logger.warning("starting the ranks again without the trial that ran out of memory")
            continue
        loading = pod.was_loading(verdict)
        following = next_level(pod.levels, pod.level, pod.checkpoint_stage(), loading=loading, memory=pod.gpu_bytes())
        if following is None:
            hint = hint_at_the_end(pod.planned, pod.levels[pod.level].plan, loading=loading)
            return verdict.model_copy(update={"final": True, "hint": clip(hint, MAX_HINT)})
        if pod.config.topology.nodes > 1:
            return verdict
        pod.step_down(following, verdict)
        logger.warning("starting the ranks again", extra={"restarts": pod.restarts, "changes": pod.changes})


def _start(pod: PodAttempt) -> Verdict | None:
    """Run the ranks once, after a probe where one is due. None: they trained to the end."""
    pod.begin()
    if pod.probe_due():
        verdict = _gang(pod, probing=True)
        if verdict is not None:
            return verdict
        pod.measured = load_probe(pod.config, pod.level)
        logger.info("probed", extra={"probe": pod.measured.to_dict() if pod.measured else None})
    return _gang(pod, probing=False)


def _gang(pod: PodAttempt, *, probing: bool) -> Verdict | None:
    pod.status.clear()
    if pod.status.stop_raised():
        return preempted(pod.node, pod.status.stopped_by())
    kills = host.oom_kills()
    end = gang.run_ranks(pod.config, pod.node, pod.status, pod.attempt, Supervisor(pod), probing=probing)
    if isinstance(end, Verdict):
        return end
    return of_pod(pod.status, end, pod.node, killed_for_memory=host.oom_kills() > kills)


def _of_final_step(result: StepResult, pod: PodAttempt, config: RunConfig) -> StepResult:
    """The result with the step at which training ended, and what the validation rows say."""
    last = checkpoint.final_checkpoint(config)
    if last is None:
        if pod.node == 0:
            raise RuntimeError("the ranks ended without an error but left no final checkpoint")
        # Pod 0 wrote it; a network file system may show it here later.
        return result
    step, total = last[1].step, pod.planned.total_steps
    validation = validation_of(last[0])
    best_step, best_loss = validation.best or (None, None)
    record = load_search(config) if config.search else None
    changes = result.changes
    if step < total and best_loss is not None:
        best = f"the lowest loss on the validation rows, {best_loss:.4g}, was at step {best_step}"
        changes = [f"training ended early, at step {step} of {total}: {best}", *changes]
    return result.model_copy(
        update={
            "final_step": step,
            "best_step": best_step,
            "best_eval_loss": best_loss,
            "validation_warning": validation.warning,
            "changes": changes[:MAX_CHANGES],
            "search": record.summary if record else None,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
