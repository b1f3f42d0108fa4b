"""What a server may take of its node's memory where the spec sets nothing: a limit, and the size of /dev/shm."""

import itertools
import math
import re
from collections.abc import Iterator

from hone.core.modeldeployment.selection import ServedArtifact
from hone.core.modeldeployment.server import Server
from hone.core.vllm import CPU_ENVIRONMENT

GIB = 2**30
CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"
"""The variable with the size of a CPU server's cache, in GiB."""
OFFLOADED = "--kv-offloading-size"
"""The argument with the size of a cache on the host, in GiB. vLLM has it in /dev/shm."""
MOST_GIB = 65_536
"""Larger sizes are a mistake, which vLLM reports better than a quantity that Kubernetes does not take."""


def limit(server: Server, served: ServedArtifact) -> str:
    """The memory limit of a container for which the spec sets neither limit nor request.

    A CPU server holds all weights in float32, which may be twice their size on disk.
    """
    if server.spec.gpus:
        return f"{128 * server.spec.gpus + _offloaded(server)}Gi"
    return f"{8 + math.ceil(2 * served.artifact.weights_bytes / GIB) + _cpu_cache(server)}Gi"


def shm_size(server: Server) -> str:
    """Size of /dev/shm, through which the processes of a server exchange tensors."""
    return f"{(4 * server.spec.gpus or 1) + _offloaded(server)}Gi"


def _cpu_cache(server: Server) -> int:
    """GiB of a CPU server's cache; a value from a Secret or a field of the pod is not known here."""
    pod = (server.spec.pod.env if server.spec.pod else None) or []
    values = {entry.name: entry.value for entry in (*pod, *(server.runtime.env or []))}
    return _gib(values.get(CPU_CACHE) or CPU_ENVIRONMENT[CPU_CACHE])


def _offloaded(server: Server) -> int:
    """GiB of the cache on the host; of several values vLLM takes the last one."""
    return _gib([None, *_values(server.runtime.args or [], OFFLOADED)][-1])


def _values(arguments: list[str], name: str) -> Iterator[str]:
    """The values of an argument: `--name=value` or `--name value`."""
    for argument, following in itertools.pairwise([*arguments, ""]):
        key, separator, value = argument.partition("=")
        if key.replace("_", "-") == name:
            yield value if separator else following


def _gib(value: str | None) -> int:
    """A number of GiB, rounded up; 0 for anything else."""
    number = float(value) if value and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else 0
    return math.ceil(number) if number <= MOST_GIB else 0
