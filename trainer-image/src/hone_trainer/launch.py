"""PID 1 of a trainer pod: runs the ranks under torchrun, serves their figures, ends with Hone's exit code.

    python -m hone_trainer.launch

Environment: HONE_RUN_CONFIG, HONE_TERMINATION_LOG (both for use without a kubelet), JOB_COMPLETION_INDEX (node rank),
HONE_MASTER (DNS name of pod 0, with more than one node), HONE_MASTER_PORT, HONE_METRICS_PORT, HONE_POD_UID.
"""

import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hone.contract.exits import FailureClass, exit_code
from hone.contract.progress import Progress
from hone.contract.results import StepResult
from hone.contract.runconfig import (
    MASTER_ENV,
    MASTER_PORT,
    METRICS_PORT,
    NODE_RANK_ENV,
    POD_UID_ENV,
    RunConfig,
)
from hone.contract.verdict import Verdict
from hone_trainer import checkpoint, host
from hone_trainer.errors import MAX_MESSAGE, BadInput, clip
from hone_trainer.logs import setup_logging
from hone_trainer.planfile import PlanFile, load_plan
from hone_trainer.results import write_result
from hone_trainer.runconfig import load_run_config
from hone_trainer.server import serve
from hone_trainer.status import STATUS_DIR_ENV, StatusDir
from hone_trainer.verdicts import from_exit, merge, signal_name

METRICS_PORT_ENV = "HONE_METRICS_PORT"
"""Environment variable with another port of /metrics and /progress; 0 takes a free one. For several on one machine."""
MASTER_PORT_ENV = "HONE_MASTER_PORT"
"""Environment variable with another rendezvous port. For several gangs on one machine."""

_PR_SET_CHILD_SUBREAPER = 36

logger = logging.getLogger(__name__)


def main() -> int:
    """Train to the end, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    node = int(os.environ.get(NODE_RANK_ENV) or "0")
    verdict: Verdict | None = None
    final_step: int | None = None
    try:
        config = load_run_config()
        planned = load_plan(config)
        if planned is None:
            raise BadInput("RunConfig", f"{config.paths.run} holds no plan for it", "Run prepare first.")
        if checkpoint.final_checkpoint(config) is None:
            verdict = _launch(config, planned, node)
        if verdict is None:
            final_step = _final_step(config, node)
    except BadInput as error:
        verdict = error.verdict()
    except Exception as error:
        logger.exception("the launcher failed")
        verdict = Verdict(
            failure_class=FailureClass.CRASHED,
            message=clip(f"launcher: {type(error).__name__}: {error}", MAX_MESSAGE),
            node=node,
            time=time.time(),
        )
    result = StepResult(step="train", verdict=verdict, final_step=final_step)
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(verdict.failure_class) if verdict else 0


def _launch(config: RunConfig, planned: PlanFile, node: int) -> Verdict | None:
    directory = Path(tempfile.mkdtemp(prefix="hone-"))
    server = None
    try:
        status = StatusDir(directory)
        signal.signal(signal.SIGTERM, lambda *_: status.raise_stop())
        signal.signal(signal.SIGINT, lambda *_: status.raise_stop())
        _adopt_orphans()
        server = serve(
            int(os.environ.get(METRICS_PORT_ENV) or METRICS_PORT), status, _starting(planned) if node == 0 else None
        )
        logger.info("serving", extra={"port": server.server_port})
        kills = host.oom_kills()
        code = _run_ranks(config, node, directory)
        return _verdict(status, code, node, killed_for_memory=host.oom_kills() > kills)
    finally:
        if server:
            server.shutdown()
        _end_children()
        shutil.rmtree(directory, ignore_errors=True)


def _run_ranks(config: RunConfig, node: int, directory: Path) -> int:
    """Run torchrun to its end, reaping whatever else became a child of PID 1. Returns its exit code."""
    command = [sys.executable, "-m", "hone_trainer.elastic", *torchrun_arguments(config, node)]
    torchrun = subprocess.Popen(
        command,
        env={**os.environ, **rank_environment(config), STATUS_DIR_ENV: str(directory)},
        # A session of its own: a signal to the launcher's group is not one to the ranks.
        start_new_session=True,
    )
    while True:
        pid, wait_status = os.waitpid(-1, 0)
        if pid == torchrun.pid:
            torchrun.returncode = os.waitstatus_to_exitcode(wait_status)
            return torchrun.returncode


def torchrun_arguments(config: RunConfig, node: int) -> list[str]:
    """torchrun's arguments for this pod: where the ranks meet, how many there are, what they run."""
    topology = config.topology
    if topology.nodes > 1:
        master = os.environ.get(MASTER_ENV)
        if not master:
            raise BadInput(MASTER_ENV, f"is not set, but the run has {topology.nodes} nodes", None)
        port = int(os.environ.get(MASTER_PORT_ENV) or MASTER_PORT)
    else:
        master, port = "127.0.0.1", _free_port()
    return [
        f"--nnodes={topology.nodes}",
        f"--node-rank={node}",
        f"--nproc-per-node={topology.processes_per_node}",
        f"--master-addr={master}",
        f"--master-port={port}",
        "--max-restarts=0",
        "--module",
        "hone_trainer.train",
    ]


def rank_environment(config: RunConfig) -> dict[str, str]:
    """What the ranks' environment has beside the pod's own."""
    threads = max(1, host.cpus() // config.topology.processes_per_node)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Everything lies in mounted directories: a look at a hub is an error, a slow one, and tells others what is run.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    if config.topology.gpus_per_node == 0:
        environment["DS_ACCELERATOR"] = "cpu"
        # Threads that wait by spinning eat the CPU quota that the others need.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["CUDA_VISIBLE_DEVICES"] = ""
        if config.topology.nodes == 1:
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    return environment


def _verdict(status: StatusDir, code: int, node: int, *, killed_for_memory: bool) -> Verdict | None:
    """Why the ranks ended, or None where they trained to the end."""
    verdicts = status.verdicts()
    if code == 0 and not verdicts:
        return None
    steps = {rank: told.step for rank, told in status.statuses().items()}
    spoke = {verdict.rank for verdict in verdicts}
    failures = status.failures()
    if any(failure["exitCode"] != -signal.SIGTERM for failure in failures.values()) or spoke:
        # torchrun lists the ranks that it ended itself, too.
        failures = {rank: failure for rank, failure in failures.items() if failure["exitCode"] != -signal.SIGTERM}
    for rank, failure in failures.items():
        if rank not in spoke:
            verdicts.append(
                from_exit(rank, node, int(failure["exitCode"]), failure["time"], steps.get(rank), killed_for_memory)
            )
    if not verdicts:
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}"
        found = FailureClass.HOST_OUT_OF_MEMORY if killed_for_memory else FailureClass.CRASHED
        return Verdict(
            failure_class=found,
            message=f"torchrun {how}, and no rank could say why; see the pod's log",
            node=node,
            exit_code=code,
            step=min(steps.values(), default=None),
            time=time.time(),
        )
    return merge(verdicts)


def _final_step(config: RunConfig, node: int) -> int | None:
    last = checkpoint.final_checkpoint(config)
    if last is not None:
        return last[1].step
    if node == 0:
        raise RuntimeError("the ranks ended without an error but left no final checkpoint")
    # Pod 0 wrote it; a network file system may show it here later.
    return None


def _starting(planned: PlanFile) -> Progress:
    return Progress(
        pod_uid=os.environ.get(POD_UID_ENV, ""), total_steps=planned.plan.total_steps, observed_time=time.time()
    )


def _adopt_orphans() -> None:
    """Become the parent of ranks whose torchrun died, as PID 1 already is, so that they can be found and ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_children() -> None:
    """Kill and reap what is left: nothing of this run may touch the checkpoints once the verdict is out."""
    while left := host.children(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
