"""Reads the progress of a prepare or trainer pod, which is not trusted: short timeout, no redirects, limited body."""

import os

import aiohttp

from hone.contract.progress import Progress
from hone.contract.runconfig import METRICS_PORT
from hone.core import reported
from hone.core.kind import ProgressTarget
from hone.core.observed import ProgressReading

TIMEOUT_SECONDS = 2.0
MAX_BYTES = 16 * 1024


class ProgressReader:
    """Reads `/progress` of prepare and trainer pods.

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
        return ProgressReading(target.pod_uid, error=reported.text(error, 256))

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
        return reported.progress(body, target.pod_uid)
