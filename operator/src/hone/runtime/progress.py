"""Reads the progress of a trainer pod, which is not trusted: short timeout, no redirects, limited body, checks."""

import json
import math
import os
from typing import Any

import aiohttp
import pydantic

from hone.contract import VERSION
from hone.contract.progress import Progress
from hone.contract.runconfig import METRICS_PORT
from hone.core.kind import ProgressTarget
from hone.core.observed import ProgressReading

TIMEOUT_SECONDS = 2.0
MAX_BYTES = 16 * 1024
MAX_COUNT = 10**12
"""No run has more steps; a larger count is rejected."""


class ProgressReader:
    """Reads `/progress` of trainer pods.

    Args:
        port: the pods' port.
        timeout: maximum seconds for an answer, including connection and body.
    """

    def __init__(self, port: int = METRICS_PORT, timeout: float = TIMEOUT_SECONDS) -> None:
        self._port = port
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout),
            connector=aiohttp.TCPConnector(limit=32, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def read(self, target: ProgressTarget) -> ProgressReading:
        """The pod's progress, or why it could not be read. Never raises because of the pod."""
        try:
            return ProgressReading(target.pod_uid, progress=await self._read(target))
        except TimeoutError:
            error = "no answer in time"
        except aiohttp.ClientConnectorError as failure:
            error = f"no answer: {os.strerror(failure.os_error.errno) if failure.os_error.errno else failure}"
        except (aiohttp.ClientError, OSError) as failure:
            error = f"no answer: {failure or type(failure).__name__}"
        except ValueError as failure:
            error = str(failure)
        return ProgressReading(target.pod_uid, error=error[:256])

    async def _read(self, target: ProgressTarget) -> Progress:
        host = f"[{target.pod_ip}]" if ":" in target.pod_ip else target.pod_ip
        url = f"http://{host}:{self._port}/progress"
        async with self._session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response:
            if response.status != 200:
                raise ValueError(f"the pod answered HTTP {response.status}")
            body = b""
            async for chunk in response.content.iter_chunked(MAX_BYTES):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the pod's answer is longer than {MAX_BYTES} bytes")
        return parse(body, target.pod_uid)


def parse(body: bytes, pod_uid: str) -> Progress:
    """The progress in a pod's answer; numbers that are not finite become None.

    Raises:
        ValueError: it is not valid, of another pod, of an unknown version, or out of range.
    """
    try:
        progress = Progress.from_dict(_dict(json.loads(body, parse_constant=lambda _: None)))
    except (pydantic.ValidationError, RecursionError, ValueError) as error:
        raise ValueError(f"the pod's answer is not a valid progress report: {str(error).splitlines()[0]}") from error
    if progress.version not in (VERSION, VERSION - 1):
        raise ValueError(f"the pod's answer has version {progress.version}; this operator reads {VERSION}")
    if progress.pod_uid != pod_uid:
        raise ValueError("another pod answered at this pod's address")
    steps = (progress.step, progress.total_steps, progress.checkpoint_step or 0, progress.resumed_from_step or 0)
    if not all(0 <= count <= MAX_COUNT for count in (*steps, progress.restarts)):
        raise ValueError("the pod's answer has a count that is out of range")
    floats = (progress.epoch, progress.observed_time, progress.tokens_per_second, progress.seconds_per_step)
    if not all(value is None or (math.isfinite(value) and 0 <= value < 1e15) for value in floats):
        raise ValueError("the pod's answer has a number that is out of range")
    values = {name: value for name, value in progress if not (isinstance(value, float) and not math.isfinite(value))}
    return Progress(**values)


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return {key: item for key, item in value.items() if item is not None}
