"""This pod's share of the gang: torchrun and its ranks, from their start until none of them is left."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hone.contract.runconfig import ATTEMPT_ENV, MASTER_ENV, MASTER_PORT, Attempt, RunConfig
from hone.contract.verdict import Verdict
from hone_trainer.launcher import tunnel
from hone_trainer.protocol import host
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.probe import PROBE_ENV
from hone_trainer.protocol.status import STATUS_DIR_ENV, StatusDir

MASTER_PORT_ENV = "HONE_MASTER_PORT"
"""Environment variable with another rendezvous port. For several gangs on one machine."""
BACKEND = "hone"
"""torchrun's `--rdzv-backend` (`hone_trainer/launcher/store.py`); `--rdzv-conf` has the node's rank and the timeout."""
POLL_SECONDS = 0.2
_SET_MASTER = "Set it to the DNS name of pod 0. The operator sets it in the pods that it creates."

CPU_HEAP = ":".join(
    [
        "glibc.malloc.tcache_count=0",
        "glibc.malloc.mxfast=0",
        f"glibc.malloc.mmap_threshold={32 << 20}",
        f"glibc.malloc.trim_threshold={1 << 30}",
    ]
)
"""glibc's heap for ranks whose tensors lie in it; other C libraries ignore it.

torch allocates tensors aligned to 64 bytes, so glibc splits off a few bytes in front of each. By default it keeps these
small chunks in caches, where they fragment the space that freed tensors leave: no tensor of the same size fits there,
and the heap grows. Without the caches, freed chunks are merged with their neighbors at once. The end of the heap is
then free more often; the third and fourth setting keep glibc from returning it to the kernel in every step, which would
zero and map it again.
"""

RECORDED_COLLECTIVES = 2000
FLIGHT_RECORD = "nccl-trace-rank-"
"""Beginning of the files in the run's directory to which a rank writes its last `RECORDED_COLLECTIVES` when one of them
timed out, so that they outlive the pod: `torchfrtrace` says from them which rank did not take part."""

_PR_SET_CHILD_SUBREAPER = 36

Supervise = Callable[[int], Verdict | None]
"""(torchrun's process) -> why the ranks are to be ended now, or None to let them run."""


def run_ranks(
    config: RunConfig, node: int, status: StatusDir, attempt: Attempt, supervise: Supervise, *, probing: bool = False
) -> int | Verdict:
    """Run torchrun until it ends or `supervise` ends it, reaping whatever else became a child of PID 1.

    Returns:
        torchrun's exit code, or the verdict of `supervise`. None of the processes that it started is left.
    """
    with rendezvous(config, node, probing=probing) as store_port:
        return _run_torchrun(config, node, store_port, status, attempt, supervise, probing=probing)


def _run_torchrun(
    config: RunConfig,
    node: int,
    store_port: int,
    status: StatusDir,
    attempt: Attempt,
    supervise: Supervise,
    *,
    probing: bool,
) -> int | Verdict:
    torchrun = subprocess.Popen(
        [sys.executable, "-m", "hone_trainer.launcher.elastic", *torchrun_arguments(config, node, store_port)],
        env={
            **os.environ,
            **rank_environment(config),
            ATTEMPT_ENV: attempt.to_json(),
            STATUS_DIR_ENV: str(status.directory),
            PROBE_ENV: "1" if probing else "",
        },
        # A session of its own: a signal to the launcher's group is not one to the ranks.
        start_new_session=True,
    )
    try:
        while True:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if pid == torchrun.pid:
                torchrun.returncode = os.waitstatus_to_exitcode(wait_status)
                return torchrun.returncode
            if pid:
                continue
            if (verdict := supervise(torchrun.pid)) is not None:
                return verdict
            time.sleep(POLL_SECONDS)
    finally:
        end_children()


@contextlib.contextmanager
def rendezvous(config: RunConfig, node: int, *, probing: bool = False) -> Iterator[int]:
    """Where torchrun finds its store, as a port of the loopback address; for several pods, with a tunnel to pod 0.

    Raises:
        BadInput: there are several pods, but the address of pod 0 is not set.
    """
    store_port = _free_port()
    if config.topology.nodes == 1:
        yield store_port
        return
    master = os.environ.get(MASTER_ENV)
    if not master:
        raise BadInput(MASTER_ENV, f"is not set, but the run has {config.topology.nodes} nodes", _SET_MASTER)
    # Another port for the probe: its last connections may still linger when the run begins.
    port = int(os.environ.get(MASTER_PORT_ENV) or MASTER_PORT) + probing
    key = tunnel.load_key(Path(config.paths.run))
    with (
        tunnel.entrance(port, store_port, key)
        if node == 0
        else tunnel.passage(master, port, store_port, key, seconds=config.start_deadline_seconds)
    ):
        yield store_port


def torchrun_arguments(config: RunConfig, node: int, store_port: int) -> list[str]:
    """torchrun's arguments for this pod: the rendezvous, how many ranks there are, what they run.

    Args:
        config: the run's configuration.
        node: index of this pod.
        store_port: port of the loopback address at which the ranks meet.
    """
    topology = config.topology
    return [
        f"--nnodes={topology.nodes}",
        f"--nproc-per-node={topology.processes_per_node}",
        f"--rdzv-backend={BACKEND}",
        f"--rdzv-endpoint={tunnel.LOOPBACK}:{store_port}",
        f"--rdzv-conf=rank={node},timeout={config.start_deadline_seconds}",
        "--max-restarts=0",
        "--module",
        "hone_trainer.train",
    ]


def rank_environment(config: RunConfig) -> dict[str, str]:
    """The ranks' environment variables, in addition to the pod's own."""
    threads = max(1, host.cpus() // config.topology.processes_per_node)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Everything lies in mounted directories: a request to a hub is an error, is slow, and discloses what is run.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    if config.topology.nodes == 1:
        # Nobody outside the pod is to reach what the ranks listen on.
        environment["GLOO_SOCKET_IFNAME"] = "lo"
        environment["NCCL_SOCKET_IFNAME"] = "lo"
    if config.topology.gpus_per_node == 0:
        environment["DS_ACCELERATOR"] = "cpu"
        # Threads that wait by spinning use up the CPU quota that the others need.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["CUDA_VISIBLE_DEVICES"] = ""
        environment["GLIBC_TUNABLES"] = CPU_HEAP
    elif "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        # Rows differ in length: blocks that can grow are used again for the next, longer one.
        environment["PYTORCH_ALLOC_CONF"] = os.environ.get("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if config.topology.gpus_per_node and config.topology.world_size > 1:
        record = {
            "TORCH_FR_BUFFER_SIZE": str(RECORDED_COLLECTIVES),
            "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
            "TORCH_FR_DUMP_TEMP_FILE": str(Path(config.paths.run) / FLIGHT_RECORD),
        }
        environment |= {name: value for name, value in record.items() if name not in os.environ}
    return environment


def adopt_orphans() -> None:
    """Become the parent of ranks whose torchrun died, as PID 1 already is, so that they can be found and ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill and reap what is left: nothing of this run may touch the checkpoints once the verdict is out."""
    while left := host.children(os.getpid()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
